"""Results as tables: read from the views, laid out, and printed."""
