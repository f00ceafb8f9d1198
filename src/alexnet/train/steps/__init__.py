"""Training steps: the plain and the fused one, the choice between them, and the check of the fused
one.
"""
