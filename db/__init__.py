"""Everything that outlives a process: models, guarded transitions, artifacts, views."""
