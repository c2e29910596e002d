"""A stored run: which one, where it stands, what it was made from, stopping it and trying it again."""
