"""Gradients and Hessians of a network's loss on fixed samples, as functions of its trained parameters."""
