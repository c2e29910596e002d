"""The same graph of no-ops in other systems: `python -m benchmarks.field [SYSTEM …] [--leaves 2000]`.

Needs the extra ``benchmarks``; what is not installed is left out. Prints milliseconds per job, and what each keeps
through ``kill -9``: of 60 jobs how many were lost and how many were executed twice after its program was killed
amid them and started again.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from benchmarks import CHECKOUT
from benchmarks.databases import new_postgres
from benchmarks.waiting import wait_for

SYSTEMS = {
    "procrastinate": "procrastinate",
    "huey": "huey",
    "dask": "distributed",
    "luigi": "luigi",
    "dbos": "dbos",
    "prefect": "prefect",
}
"""Which package each needs."""
MARKED = 60
PATIENCE_SECONDS = 90


def start(system: str, *arguments: object) -> subprocess.Popen[str]:
    """One of a system's programs, in a process group of its own."""
    command = [sys.executable, "-m", f"benchmarks.field.{system}_field", *map(str, arguments)]
    quiet = {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    return subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env={**os.environ, **quiet, "PREFECT_HOME": f"{arguments[1]}/prefect"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def end(program: subprocess.Popen[str]) -> None:
    """Kill all that it has started."""
    os.killpg(program.pid, signal.SIGKILL)
    program.wait()


def cost(system: str, folder: Path, leaves: int) -> str:
    """Milliseconds per job, or why there is none."""
    program = start(system, "run", folder, leaves)
    try:
        said, _ = program.communicate(timeout=10 * PATIENCE_SECONDS)
        return f"{float(said.split()[-1]):.2f}" if program.returncode == 0 and said else "failed"
    except subprocess.TimeoutExpired:
        end(program)
        return "too long"


def survival(system: str, folder: Path) -> str:
    """Jobs lost and doubled by one ``kill -9`` and a new start."""
    done = folder / "done"
    done.touch()
    start(system, "seed", folder, MARKED).wait()
    first = start(system, "work", folder, MARKED)
    wait_for(lambda: done.stat().st_size > 0, "the first job")
    time.sleep(0.5)
    end(first)
    second = start(system, "work", folder, MARKED)
    try:
        second.wait(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        end(second)
    counts = Counter(done.read_text().split())
    doubled = sum(count > 1 for count in counts.values())
    return f"{MARKED - len(counts)} lost, {doubled} doubled"


def main() -> None:
    """Read the command line; one line per system."""
    parser = argparse.ArgumentParser(description="The field.")
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--leaves", type=int, default=2000)
    options = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(new_postgres())
        for system in options.systems:
            if find_spec(SYSTEMS[system]) is None:
                print(f"{system:14} is not installed")
                continue
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="f-")))
            (folder / "url").write_text(server.url("postgres"))
            taken = cost(system, folder, options.leaves)
            print(f"{system:14} {taken:>8} ms per job; kill -9: {survival(system, folder)}", flush=True)


if __name__ == "__main__":
    main()
