"""Diagnose a network before a run (doctor) and during one (watch)."""
