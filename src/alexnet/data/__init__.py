"""Photos to batches: sources (where they come from), prepare.py and image.py
(decode and shrink), store.py (records of one size), loader.py (which records make a batch),
augment.py (what is done to them).
"""
