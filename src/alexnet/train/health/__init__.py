"""What a network says of itself: before a run (doctor) and during one (watch)."""
