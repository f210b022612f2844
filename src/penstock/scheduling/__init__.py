"""Which tokens to compute next, and where their keys and values live. Integers only: never a
tensor.
"""
