"""What many networks teach: families, ablations, pairs, and the pages about them."""
