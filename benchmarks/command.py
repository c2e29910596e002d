"""`python -m benchmarks.command …` is `orchestrator …` that knows the stage `noop`."""

import benchmarks.noop  # noqa: F401  # installs the stage
from orchestrator.main import main

if __name__ == "__main__":
    main()
