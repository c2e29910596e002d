"""Standard streams that accept whatever is printed."""

import io
import os
import sys


def open_streams() -> None:
    """Open closed streams on /dev/null, so that no database file gets their number; escape unencodable characters."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_on_nothing(number)
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: SIM115  # for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_on_nothing(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    # os.open() makes descriptors that children do not get
    os.set_inheritable(number, True)
