"""Published files: which there are, and how they get here."""
