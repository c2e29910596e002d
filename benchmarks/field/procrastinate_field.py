"""procrastinate on Postgres: one process, two jobs at a time; the layers are deferred one after another."""

import asyncio
import sys
import time
from pathlib import Path

import procrastinate

from benchmarks.field import MIDDLES, NAP_SECONDS

FOLDER = Path(sys.argv[2])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=(FOLDER / "url").read_text()))
done: list[int] = []


@app.task(name="noop")
async def noop(number: int) -> None:
    """Nothing."""
    done.append(number)


@app.task(name="mark")
async def mark(number: int) -> None:
    """Say that it was done."""
    await asyncio.sleep(NAP_SECONDS)
    with (FOLDER / "done").open("a") as file:
        file.write(f"{number}\n")


async def run(leaves: int) -> None:
    """Defer and execute layer by layer, since it knows no edges."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        for width in (leaves, MIDDLES, 1):
            await noop.batch_defer_async(*({"number": number} for number in range(width)))
            await app.run_worker_async(concurrency=2, wait=False, install_signal_handlers=False)
        assert len(done) == leaves + MIDDLES + 1
        print(1000 * (time.perf_counter() - began) / len(done))


async def seed(jobs: int) -> None:
    """Store jobs, in the schema that ``run`` has made."""
    async with app.open_async():
        await mark.batch_defer_async(*({"number": number} for number in range(jobs)))


async def work() -> None:
    """What is there to do."""
    async with app.open_async():
        await app.run_worker_async(concurrency=2, wait=False, install_signal_handlers=False)


if __name__ == "__main__":
    ways = {"run": run, "seed": seed, "work": work}
    arguments = [int(sys.argv[3])] if sys.argv[1] in ("run", "seed") else []
    asyncio.run(ways[sys.argv[1]](*arguments))
