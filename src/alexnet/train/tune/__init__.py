"""Training that begins with weights: base.py (which), features.py and head.py (a new last layer),
begin.py (all of it before the first step).
"""
