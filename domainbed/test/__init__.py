"""Helpers of upstream's tests, for forks whose own tests use them."""
