"""From a spec to jobs, in memory: which jobs a run has, and which of them read which."""
