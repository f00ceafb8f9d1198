"""Published files: the list of them, and their download."""
