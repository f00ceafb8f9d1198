"""Training: recipes.py (named runs), optim.py (the paper's SGD), run.py (a run's folder), loop.py
(the algorithm), result.py (what a run gave, and the proof); family.py (many seeds); ablations.py
(the paper's claims), ablate.py (their pairs), paired.py (what pairs show), record.py
(all of it for people)."""
