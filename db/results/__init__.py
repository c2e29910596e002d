"""The results: their tables, the views that are their public face, and the published figures."""
