"""Child processes that cannot outlive the process that started them.

A child has a session of its own, so that Ctrl-C in a terminal reaches only its parent, which ends it in order. In
case the parent is killed, a guard waits on a pipe from the parent; when that closes, the guard ends the child.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stream.errors import TapewatchError

STOP_SECONDS: Final = 20.0

# The number stays the child's own while it is not reaped, and only its parent, which has gone by then, could have
# done that before.
_GUARD: Final = """
import os, signal, sys, time
child = int(sys.argv[1])
sys.stdin.read()
try:
    os.kill(child, signal.SIGTERM)
    for _ in range(100):
        time.sleep(0.1)
        os.kill(child, 0)
    os.kill(child, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


class Child:
    """A running program whose output goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start `command`; stdout and stderr are appended to `log`.

        Raises
        ------
        TapewatchError
            If the program cannot be started.
        """
        self.log = log
        try:
            with log.open("ab") as out:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=None if environ is None else dict(environ),
                    cwd=directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise TapewatchError(f"cannot start {command[0]}: {error.strerror}") from None
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-c", _GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.returncode is None

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask with SIGTERM, wait, and kill what is still there after `seconds`; gives the exit status."""
        if self.running:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._end()

    def kill(self) -> int:
        """SIGKILL: nothing is flushed or closed."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        return self._end()

    def last_lines(self, count: int = 15) -> str:
        """The end of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-count:])

    def _end(self) -> int:
        status = self._process.wait()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
