"""`python -m benchmarks.command …` is `orchestrator …` that knows the stage `noop`."""

from benchmarks import noop
from orchestrator.main import main

if __name__ == "__main__":
    noop.install()
    main()
