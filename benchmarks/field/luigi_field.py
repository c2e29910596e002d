"""Luigi with its local scheduler and two processes: each task is a class with a target file."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import luigi

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])


class Leaf(luigi.Task):
    """Nothing but its target."""

    number = luigi.IntParameter()

    def output(self) -> luigi.LocalTarget:
        """An empty file."""
        return luigi.LocalTarget(str(FOLDER / f"{self.task_family}-{self.number}"))

    def run(self) -> None:
        """Make it."""
        with self.output().open("w"):
            pass


class Middle(Leaf):
    """Reads every 20th leaf."""

    leaves = luigi.IntParameter()

    def requires(self) -> Iterator[luigi.Task]:
        """Its leaves."""
        return (Leaf(number) for number in range(self.number, self.leaves, MIDDLES))


class Root(Leaf):
    """Reads all middles."""

    leaves = luigi.IntParameter()

    def requires(self) -> Iterator[luigi.Task]:
        """The middles."""
        return (Middle(number, self.leaves) for number in range(MIDDLES))


class Mark(Leaf):
    """Says that it was done."""

    def run(self) -> None:
        """A line, then the target."""
        time.sleep(NAP_SECONDS)
        with (FOLDER / "done").open("a") as done:
            done.write(f"{self.number}\n")
        super().run()


def build(tasks: list[luigi.Task]) -> None:
    """Execute what has no target yet."""
    luigi.build(tasks, workers=2, local_scheduler=True, log_level="ERROR")


if __name__ == "__main__":
    count = int(sys.argv[3])
    if sys.argv[1] == "run":
        began = time.perf_counter()
        build([Root(0, count)])
        print(1000 * (time.perf_counter() - began) / (count + MIDDLES + 1))
    elif sys.argv[1] == "work":
        build([Mark(number) for number in range(count)])
