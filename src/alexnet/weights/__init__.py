"""Weights in files. `native.py` is our own format; each foreign one is a translator beside it."""
