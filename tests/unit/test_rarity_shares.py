"""How often normal ticks are called rare: over the whole pipeline, and in the card that ships."""

from pathlib import Path

import numpy as np
import pytest

from stream import inference
from stream.backtest import Backtest
from stream.config import DEFAULT_MODELS, Settings
from stream.errors import TapewatchError
from stream.feeds.files import open_ticks
from stream.inference import read_card
from stream.pipeline import Pipeline
from tests.bundles import shipped
from tests.training_data import write_sample
from training import cards, data, rarity

MODELS = Path(DEFAULT_MODELS)


def test_shares_are_of_the_test_part_by_instrument(tmp_path: Path) -> None:
    file, models = write_sample(tmp_path / "ltc.parquet", 20_000), inference.load(MODELS)
    (series,) = data.load([file], data.quiet).series
    backtest = Backtest(Pipeline(Settings(), models, 0), models)
    (batch,) = open_ticks(file)
    whole = backtest.chunk(batch, slice(0, len(batch)))[0].results.risk[:, 0]
    rows = np.flatnonzero(series.part == data.TEST)
    found = rarity.shares(models, [file])
    assert found == pytest.approx({"all": (whole[rows] > 0.99).mean(), series.symbol: (whole[rows] > 0.99).mean()})


def test_too_few_ticks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_sample(tmp_path / "ltc.parquet", 20_000)
    monkeypatch.setattr(rarity, "LEAST_TICKS", 5_001)
    with pytest.raises(TapewatchError, match="no instrument has 5,001 normal ticks"):
        rarity.shares(inference.load(MODELS), [file])


def test_the_shipped_card_holds_the_shares_and_all_instruments_have_what_is_promised() -> None:
    card = read_card(shipped(MODELS, "wgan") / "card.json")
    found = card.metrics[cards.PUBLISHED]
    assert len(found) > 10
    text = cards.markdown(card)
    assert all(f"| {name} |" in text for name in found)
    assert not any(name in text.split("## Where it fails")[1].split("## ")[0] for name in found if name != "all")
