"""Signals against labels of others, on a few minutes worked by hand."""

import numpy as np
import pytest

from stream.errors import TapewatchError
from training import labels

MINUTE = labels.MINUTE


def test_quotes_before_the_trade_count_and_minutes_are_averaged() -> None:
    # Three minutes with trades; the quote of the very moment of a trade is not used for it.
    clock = np.array([10, 20, MINUTE + 5, 2 * MINUTE + 5])
    quote_ns = np.array([0, 20, MINUTE, 2 * MINUTE])
    quoted = np.array([2e-4, 9e-4, 4e-4, 8e-4])
    proxy = np.array([1e-4, 3e-4, 4e-4, 8e-4])
    found = labels.spread(clock, proxy, quote_ns, quoted)
    # Quoted by minute 2, 4 and 8 bp, proxies 2, 4 and 8 bp.
    assert found.minutes == 3
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.ratio == pytest.approx(1.0)
    assert found.quoted == pytest.approx(4.0)


def test_proxy_that_falls_when_the_spread_rises_is_seen() -> None:
    clock = np.arange(1, 6) * MINUTE + 1
    quote_ns = np.arange(1, 6) * MINUTE
    rising = np.arange(1.0, 6.0)
    assert labels.spread(clock, 1 / rising, quote_ns, rising).rank_correlation == pytest.approx(-1.0)


def test_trades_before_the_first_quote_are_left_out() -> None:
    with pytest.raises(TapewatchError, match="0 minutes with trades and quotes"):
        labels.spread(np.array([1, 2]), np.ones(2), np.array([5]), np.ones(1))


def test_alerts_against_episodes_by_hand() -> None:
    # Told every minute from 0 to 19; labelled in 5 and 6, and in 15: with the minute before and two after these are
    # 4 to 8 and 14 to 17, 7 of the 19 minutes.
    minute = np.arange(20) * MINUTE
    labelled = np.isin(np.arange(20), (5, 6, 15))
    opened = np.array([4.5, 7.9, 8.1, 12.0]) * MINUTE
    found = labels.agreement(opened.astype(np.int64), minute, labelled)
    assert (found.episodes, found.found, found.alerts, found.explained) == (2, 1, 4, 2)
    assert found.share == pytest.approx(7 / 19)


def test_overlapping_episodes_cover_their_time_once() -> None:
    minute = np.arange(11) * MINUTE
    labelled = np.isin(np.arange(11), (3, 5))  # 2 to 5 and 4 to 7: five of ten minutes
    found = labels.agreement(np.zeros(0, np.int64), minute, labelled)
    assert found.share == pytest.approx(0.5)
    assert (found.found, found.alerts) == (0, 0)


def test_no_episode_explains_nothing() -> None:
    minute = np.arange(5) * MINUTE
    assert labels.agreement(minute, minute, np.zeros(5, np.bool_)) == labels.Agreement(0, 0, 5, 0, 0.0)
