"""Looking inside: each module turns a network into plain arrays, and `figures.py` draws them."""
