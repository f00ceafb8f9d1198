"""Look inside a network: each module turns it into plain arrays, and `figures.py` draws them."""
