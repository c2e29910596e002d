"""What the engine costs: run from a checkout as ``python -m benchmarks.NAME``, with the extra ``test`` installed."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

# servers and processes are started as the chaos tests start them
sys.path.append(str(CHECKOUT / "tests" / "chaos"))
