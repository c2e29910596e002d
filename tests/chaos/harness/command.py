"""`python -m harness.command`: the command line of an installation that knows the stage ``link``."""

from harness import link
from orchestrator.main import main

if __name__ == "__main__":
    link.install()
    main()
