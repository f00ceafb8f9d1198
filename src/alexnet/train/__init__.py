"""Training: recipes.py (named runs), optim.py (the paper's SGD), run.py (a run's folder), loop.py (the algorithm)."""
