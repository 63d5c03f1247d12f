"""Our signals against labels that others made: the quoted spread, and an exchange's own account of its health.

`python -m training.labels DATA ALERTS` prints both as Markdown: DATA is the folder of ticks, quotes and health; ALERTS
the alerts.parquet that `tapewatch backtest` wrote for its bitflyer_btcjpy.parquet. Nothing here is fitted.
"""

import sys
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr

from stream.core.features import INDEX
from stream.errors import TapewatchError
from training import data

MINUTE: Final = 60 * data.SECOND
GRACE_NS: Final = 2 * MINUTE
"""The label is taken once a minute, and a gap shows at the first tick after it: so far apart they still agree."""
OUTAGE: Final = "no order or not running"


class Spread(NamedTuple):
    """A proxy against the quoted spread, means over minutes."""

    minutes: int
    rank_correlation: float  # Spearman
    ratio: float  # median of proxy / quoted
    quoted: float  # median, basis points


def spread(
    clock_ns: NDArray[np.int64],
    proxy: NDArray[np.float64],
    quote_ns: NDArray[np.int64],
    quoted: NDArray[np.float64],
) -> Spread:
    """Compare at the trades, minute by minute.

    Parameters
    ----------
    clock_ns : int64[n]
        Of the trades.
    proxy : float64[n]
        Relative spread by the proxy, at each trade.
    quote_ns : int64[m]
        Of the quotes, rising.
    quoted : float64[m]
        (ask - bid) / mid from then on.

    Raises
    ------
    TapewatchError
        If fewer than three minutes hold trades with a quote before them.
    """
    before = np.searchsorted(quote_ns, clock_ns, "left") - 1  # a quote of the same moment may be the trade's own work
    known = before >= 0
    minute = clock_ns[known] // MINUTE
    ours, theirs = _means(minute, proxy[known]), _means(minute, quoted[before[known]])
    if len(ours) < 3:
        raise TapewatchError(f"{len(ours)} minutes with trades and quotes, at least 3 are needed to compare spreads")
    return Spread(
        len(ours),
        float(spearmanr(ours, theirs).statistic),
        float(np.median(ours / theirs)),
        float(np.median(theirs) * 1e4),
    )


def _means(group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, count = np.unique(group, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.bincount(inverse, values) / count
    return means


class Agreement(NamedTuple):
    """Alerts against episodes of one label."""

    episodes: int
    found: int  # episodes with an alert from their start to GRACE_NS after their end
    alerts: int
    explained: int  # alerts that fall into such a time
    share: float  # of all time that is such a time: what alerts at random moments would be explained by


def agreement(opened_ns: NDArray[np.int64], minute_ns: NDArray[np.int64], labelled: NDArray[np.bool_]) -> Agreement:
    """Alerts against the minutes that carry a label.

    Parameters
    ----------
    opened_ns : int64[k]
        When the alerts opened.
    minute_ns : int64[m]
        When the exchange told its state, rising, about once a minute.
    labelled : bool[m]
        Whether it was the state that is looked for.
    """
    edges = np.diff(np.concatenate(([False], labelled, [False])).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    begin = minute_ns[starts] - MINUTE  # the state may have begun just after it was told the last time
    end = minute_ns[stops] + GRACE_NS
    inside = (opened_ns[:, None] >= begin) & (opened_ns[:, None] <= end)
    covered = _union(begin, end) / max(int(minute_ns[-1] - minute_ns[0]), 1)
    return Agreement(len(starts), int(inside.any(0).sum()), len(opened_ns), int(inside.any(1).sum()), covered)


def _union(begin: NDArray[np.int64], end: NDArray[np.int64]) -> float:
    """Length of overlapping intervals in order of their start, counted once."""
    if len(begin) == 0:
        return 0.0
    reached = np.concatenate((begin[:1], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(0, end - np.maximum(begin, reached)).sum())


def spread_table(folder: Path) -> str:
    """The spread proxies of AAPL against its quotes."""
    dataset = data.load([folder / "nasdaq_aapl.parquet"], data.quiet)
    (one,) = dataset.series
    quotes = pq.read_table(folder / "nasdaq_aapl_quotes.parquet")
    bid, ask = (quotes[name].to_numpy() for name in ("bid", "ask"))
    quoted = 2.0 * (ask - bid) / (ask + bid)
    lines = ["| proxy | minutes | rank correlation | proxy / quoted, median | quoted, median, bp |", "|" + " --- |" * 5]
    known = ~one.warming
    for name, values in (
        ("Roll spread, 300 s", np.exp(one.features[:, INDEX["log_roll_spread_300s"]].astype(np.float64))),
        ("price impact, 60 s", np.exp(one.features[:, INDEX["log_price_impact_60s"]].astype(np.float64))),
        ("grid volatility, 60 s", np.exp(0.5 * one.features[:, INDEX["log_grid_variance_60s"]].astype(np.float64))),
    ):
        found = spread(one.clock_ns[known], values[known], quotes["exchange_ns"].to_numpy(), quoted)
        lines.append(
            f"| {name} | {found.minutes} | {found.rank_correlation:.2f} | {found.ratio:.2f} | {found.quoted:.2f} |"
        )
    return "\n".join(lines)


def health_table(folder: Path, alerts: Path) -> str:
    """The feed alerts of BTC_JPY against bitFlyer's health."""
    told = pq.read_table(folder / "bitflyer_health.parquet")
    minute_ns = told["exchange_ns"].to_numpy()
    health, status = (np.array(told[name].to_pylist()) for name in ("health", "status"))
    out = (status != "RUNNING") | np.isin(health, ("NO ORDER", "STOP"))
    raised = pq.read_table(alerts, filters=[("state", "=", "opened")])
    kind, opened_ns = np.array(raised["kind"].to_pylist()), raised["exchange_ns"].to_numpy()
    lines = [
        "| alerts | label | episodes | found | alerts | explained | of all time |",
        "|" + " --- |" * 7,
    ]
    for name in ("feed", "liquidity", "flow"):
        for label, labelled in (
            (OUTAGE, out),
            ("SUPER BUSY or worse", out | (health == "SUPER BUSY")),
            ("BUSY or worse", out | (health != "NORMAL")),
        ):
            found = agreement(opened_ns[kind == name], minute_ns, labelled)
            lines.append(
                f"| {name} | {label} | {found.episodes} | {_share(found.found, found.episodes)} | {found.alerts} | "
                f"{_share(found.explained, found.alerts)} | {found.share:.1%} |"
            )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})" if whole else "0"


def main() -> None:
    """Print both tables."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m training.labels DATA ALERTS")
    folder, alerts = map(Path, sys.argv[1:])
    print(f"## Spread of AAPL\n\n{spread_table(folder)}\n\n## Health of bitFlyer\n\n{health_table(folder, alerts)}")


if __name__ == "__main__":
    main()
