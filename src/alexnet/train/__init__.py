"""Training: recipes.py (named runs), start.py (how a run begins), session.py (what is under way),
loop.py (the algorithm), optim.py (the paper's SGD), run.py (a run's folder), result.py (its proof);
steps/ (how a step is computed), health/ (what may go wrong). Many networks: `alexnet.study`.
"""
