"""What the demo shows: which ticks, at which pace, and what is known of them beforehand."""

import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from stream.feeds import sample, simulator
from stream.feeds.market import SECOND_NS
from stream.feeds.replay import Block, Constant, Pace, Recorded, Rounds
from stream.feeds.scenarios import CALM, SCENARIOS
from stream.messages import Alert, Injection

SPEED: Final = 5.5  # 60 s of demo show 330 s, in which all recordings go on; 60 s of warming up are over after eleven
HISTORY_SHARE: Final = 0.2  # of the time of a show goes to the history that alerts need
AROUND_SECONDS: Final = 30  # of event time shown before and behind a scenario
CALM_SECONDS: Final = 180
SPARE_SECONDS: Final = 600  # of event time, so that ticks do not end before the show does


class Programme(NamedTuple):
    """Messages, when they are due, and what was injected."""

    title: str
    blocks: Iterable[Block]
    pace: Pace
    truth: Sequence[Injection] = ()


def recorded(rate: float | None) -> Programme:
    """The bundled recordings with some malformed messages, SPEED times as fast or at `rate` ticks a second."""
    what = f"Binance trades at {SPEED:g}x" if rate is None else f"Binance trades at {rate:g}/s"
    blocks = sample.with_faults(Rounds(sample.bundled(), loop=True))
    return Programme(what, blocks, Recorded(SPEED) if rate is None else Constant(rate))


def scenario(name: str, seconds: float, seed: int = 0) -> Programme:
    """A scenario of the simulator: half an hour of history in a hurry, then so fast that all of it is shown.

    Raises
    ------
    TapewatchError
        If there is no such scenario.
    """
    history = simulator.BEGIN_SECONDS - AROUND_SECONDS
    plan = simulator.Plan(name, seed=seed, seconds=simulator.BEGIN_SECONDS + SPARE_SECONDS)
    made = simulator.simulate(msgspec.structs.replace(plan, start_ns=time.time_ns() - history * SECOND_NS))
    shown = (SCENARIOS[name].seconds or CALM_SECONDS) + 2 * AROUND_SECONDS
    speed = max(1.0, shown / (seconds * (1.0 - HISTORY_SHARE)))
    pace = simulator.LeadIn(history, history / (seconds * HISTORY_SHARE), speed)
    title = f"{name} on {plan.symbols[0]}, simulated at {speed:.1f}x" if name != CALM else f"calm, at {speed:.1f}x"
    return Programme(title, Rounds(made.file("simulation")), pace, made.truth)


class Verdict:
    """Which alerts opened where something was injected, and which elsewhere."""

    def __init__(self, truth: Sequence[Injection]) -> None:
        self._truth = truth
        self._found: set[tuple[int, str]] = set()  # injection, kind
        self._elsewhere = 0
        self.cut_short = False  # stopped before its end: what has not opened by then is not judged

    def note(self, alert: Alert) -> None:
        """Take a change of an alert."""
        if alert.state != "opened":
            return
        hit = [number for number, each in enumerate(self._truth) if _within(alert, each)]
        self._found.update((number, alert.kind) for number in hit)
        self._elsewhere += not hit

    @property
    def complete(self) -> bool:
        """Whether each injection opened the alert that it must, as far as it is judged."""
        return self.cut_short or all((number, each.opens) in self._found for number, each in enumerate(self._truth))

    def in_words(self) -> str:
        """A line for each injection, and one for the rest."""
        lines = [self._line(number, each) for number, each in enumerate(self._truth)]
        return "\n".join([*lines, f"  alerts opened where nothing was injected: {self._elsewhere}"])

    def _line(self, number: int, each: Injection) -> str:
        kinds = sorted(kind for found, kind in self._found if found == number)
        found = f"opened {', '.join(kinds) or 'nothing'}"
        if each.opens in kinds:
            verdict = f"{found}: as it must"
        elif self.cut_short:
            verdict = f"{found}: stopped before the end: not judged"
        else:
            verdict = f"did not open {each.opens}, as it must; {found}"
        return f"  {each.scenario} on {each.symbol} {verdict}"


def _within(alert: Alert, injection: Injection) -> bool:
    same = (alert.symbol, alert.venue) == (injection.symbol, injection.venue)
    return same and injection.begin_ns <= alert.exchange_ns <= injection.end_ns
