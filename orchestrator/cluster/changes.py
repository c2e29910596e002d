"""Whether a SQLite database has changed, for the price of a look into its shared memory."""

import sqlite3
from pathlib import Path


class Changes:
    """Those since the last look, by whichever process."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._version: int | None = None

    def any(self) -> bool:
        """Whether there is one that was not seen; also where nobody can tell."""
        self._version = self._look()
        return self._version is None or self._version != self._seen

    def seen(self) -> None:
        """What was there at the last ``any`` has been looked at."""
        self._seen = self._version

    def _look(self) -> int | None:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
            # https://sqlite.org/pragma.html#pragma_data_version: moves with every commit of another connection
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return None
        return version
