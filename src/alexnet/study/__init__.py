"""Studies of many networks: families, ablations, pairs, and their records."""
