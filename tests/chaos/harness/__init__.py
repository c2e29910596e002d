"""A cluster of real processes that is disturbed on purpose, and what must be true of it afterwards."""
