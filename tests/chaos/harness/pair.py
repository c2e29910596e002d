"""A Postgres and its streaming standby under one address: what a failover is made of."""

import time
from dataclasses import dataclass

import psycopg

from harness.postgres import PostgresServer


@dataclass(frozen=True)
class Pair:
    """Both run; the standby has everything that the primary has committed, a moment later."""

    primary: PostgresServer
    standby: PostgresServer

    def url(self, name: str) -> str:
        """The URL of one of their databases: that of whichever server is written to."""
        return f"postgresql://postgres@/{name}?host={self.primary.folder}&host={self.standby.folder}"

    def hold_back(self) -> None:
        """From now on nothing that is committed reaches the standby."""
        for process in self.primary.processes():
            if "walsender" in " ".join(process.cmdline()):
                process.suspend()

    def fail_over(self) -> None:
        """The primary is gone for good, with what it has not sent."""
        self.primary.kill()
        self.standby.promote()

    def demote(self) -> None:
        """The primary only reads from now on, and its sessions stay; the standby has all and takes over."""
        with psycopg.connect(self.primary.url("postgres"), autocommit=True) as administrator:
            administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            administrator.execute("SELECT pg_reload_conf()")
            self._wait_for_readers(administrator)
            (written,) = administrator.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("0/0",)
        with psycopg.connect(self.standby.url("postgres"), autocommit=True) as follower:
            while not _is_true(follower, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (written,)):
                time.sleep(0.02)
        self.standby.promote()

    def _wait_for_readers(self, administrator: psycopg.Connection) -> None:
        """Until no transaction is left that began while it could write."""
        (now,) = administrator.execute("SELECT clock_timestamp()").fetchone() or (None,)
        older = "SELECT count(*) = 0 FROM pg_stat_activity WHERE xact_start < %s AND pid <> pg_backend_pid()"
        while not _is_true(administrator, older, (now,)):
            time.sleep(0.02)


def _is_true(connection: psycopg.Connection, question: str, values: tuple[object, ...]) -> bool:
    row = connection.execute(question, values).fetchone()
    return row is not None and bool(row[0])
