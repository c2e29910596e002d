"""Environment variables: where the processes of a cluster find each other, and what a worker is started with."""

BROKER_VARIABLE = "ORCHESTRATOR_BROKER_URL"
DATABASE_VARIABLE = "ORCHESTRATOR_DATABASE_URL"
ARTIFACTS_VARIABLE = "ORCHESTRATOR_ARTIFACTS_URL"
WORKER_VARIABLE = "ORCHESTRATOR_WORKER"
PACKAGES_VARIABLE = "ORCHESTRATOR_PACKAGES"
"""The folder that a worker must import our packages from: its supervisor's own."""
