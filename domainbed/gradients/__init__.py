"""Gradients of the K environments of one update: made, combined by a method's rule, compared.

engine           decides how the gradients are made, and applies a rule to them
passes           one joint pass, K separate passes, or shards of several processes
componentwise    applies rules that look at each component by itself, block by block
gram             applies rules that see inner products only
comparison       agreement of signs, cosine, and the share that combining removes
pieces           the K gradients by some components, as rows or as outer products
layers           an environment's gradient by a layer's parameters, from its slice of a joint pass
recording        inputs and output gradients of the layers of one pass
variance         per-sample variance of linear layers' gradients (Fishr)
random_numbers   draws that belong to components
compilation      one compiled pass over memory for large gradients
vectors          parameters and gradients as flat vectors
"""
