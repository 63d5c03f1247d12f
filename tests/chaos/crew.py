"""The workers of a run: started, struck, and started again as a supervisor would."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from stream import app
from stream.children import Child
from stream.config import ROOT, Settings
from tests.benchmark.stand import environment

CLEAN: Final = (0, -signal.SIGTERM)  # of one that was told to stop: in order, or while it was only starting
# A worker ends itself by force after so long; what is slower is the machine. The harness must not be quicker.
STOP_SECONDS: Final = app.STOP_SECONDS + app.GRACE_SECONDS + 30.0
AGAIN_SECONDS: Final = 1.0  # a supervisor starts a worker that ended by itself after so long


class Exit(msgspec.Struct, frozen=True):
    """A worker that ended without being told to, or not as it should."""

    worker: int
    status: int
    last_line: str


class Member(NamedTuple):
    """A running worker."""

    child: Child
    since: int  # where its output begins in a log that those before it have written to as well

    def exit(self, number: int) -> Exit:
        """How it ended."""
        lines = self.child.log.read_bytes()[self.since :].decode(errors="replace").splitlines()
        return Exit(number, self.child.stop(), lines[-1] if lines else "")


class Crew:
    """Numbered workers of one group."""

    def __init__(self, settings: Settings, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._environ = environment(settings)
        self._folder = folder
        self._now = now
        self._members: dict[int, Member] = {}  # those that should run, or are to be waited for
        self._again: dict[int, float] = {}  # ended by themselves: when they start again
        self._told: set[int] = set()  # to stop
        self.exits: list[Exit] = []

    def start(self, number: int) -> None:
        """Start a worker; its output is appended to worker<number>.log."""
        self._again.pop(number, None)
        log = self._folder / f"worker{number}.log"
        since = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "stream.cli", "worker"]
        self._members[number] = Member(Child(command, log, self._environ, directory=ROOT), since)

    def kill(self, number: int) -> None:
        """SIGKILL; it is not started again by itself."""
        self._again.pop(number, None)
        if (member := self._members.pop(number, None)) is not None:
            member.child.kill()

    def signal(self, number: int, what: signal.Signals) -> None:
        """SIGTERM, SIGSTOP or SIGCONT."""
        if what == signal.SIGTERM:
            self._told.add(number)
            self._again.pop(number, None)
        member = self._members.get(number)
        if member is not None and member.child.running:
            os.kill(member.child.pid, what)

    def end(self, number: int) -> None:
        """Wait until a worker that was told to stop has stopped."""
        self._told.discard(number)
        if (member := self._members.pop(number, None)) is not None and member.child.stop(STOP_SECONDS) not in CLEAN:
            self.exits.append(member.exit(number))

    def tend(self) -> None:
        """Start those again that ended by themselves, after a while."""
        for number, member in list(self._members.items()):
            if number not in self._told and not member.child.running:
                self.exits.append(member.exit(number))
                del self._members[number]
                self._again[number] = self._now() + AGAIN_SECONDS
        for number, at in list(self._again.items()):
            if self._now() >= at:
                self.start(number)

    def said(self, models: Sequence[str]) -> bool:
        """Whether some worker has put each of the models, name@version, in force in the place of another."""
        logs = [log.read_text(errors="replace") for log in self._folder.glob("worker*.log")]
        swaps = [line for log in logs for line in log.splitlines() if " swapped models " in line]
        return all(any(name in line.rpartition(" to=")[2].split(",") for line in swaps) for name in models)

    def stop(self) -> None:
        """Stop all of them in order, at the same time."""
        self._again.clear()
        for number in self._members:
            self.signal(number, signal.SIGCONT)
            self.signal(number, signal.SIGTERM)
        for number in list(self._members):
            self.end(number)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_reason: object) -> None:
        """Whatever happened: none is left."""
        with contextlib.ExitStack() as stack:
            for number in list(self._members):
                stack.callback(self.kill, number)
