"""The step of a run: the plain one, the fused one, which of them, and the check before it."""
