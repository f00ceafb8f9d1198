"""One translator for each foreign format, to and from."""
