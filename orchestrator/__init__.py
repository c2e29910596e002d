"""The producer: spec, plan, submission, the private cluster, results and the command line."""
