"""What was typed, to a run that ends."""
