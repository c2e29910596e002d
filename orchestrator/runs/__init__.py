"""A stored run: which one, its progress, what it was made from, and how to cancel or retry it."""
