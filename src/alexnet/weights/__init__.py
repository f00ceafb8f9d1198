"""Weights in files: `native.py` has our own format, `formats/` one translator for each foreign
one.
"""
