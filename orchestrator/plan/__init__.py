"""A spec to jobs, in memory: which jobs a run has, and who reads whom."""
