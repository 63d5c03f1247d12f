"""The contract of the forecasters, the same for every kind, and that each runs as a bundle in the worker's pipeline."""

import hashlib
import shutil
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from stream import backtest, inference
from stream.config import DEFAULT_MODELS
from stream.core.features import INDEX
from stream.core.packing import new_scratch, pack
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS, QUANTILE_LEVELS
from tests import ticks
from tests.bundles import shipped
from tests.graphs import words
from tests.training_data import sample, write_sample
from training import baselines, data, evaluation, export, forecaster
from training.forecasters.contract import Forecaster, Kind

TICKS = 600
INSTRUMENTS = 9
_RNG = np.random.default_rng(7)
# One instrument has most of the ticks, so that the packing has both of its rectangles.
SLOTS = np.minimum(_RNG.geometric(0.4, TICKS) - 1, INSTRUMENTS - 1).astype(np.int32)
MOST_RANDOM = 0.2

pytestmark = pytest.mark.timeout(600)  # an export takes a minute on a crowded machine
every_kind = pytest.mark.parametrize("kind", list(forecaster.KINDS))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def network(kind: Kind, seed: int = 0) -> Forecaster:
    """Weights far from the start, so that a part left out would show; not to be changed."""
    net = forecaster.build(forecaster.SETTINGS[kind])
    net.normalise.load_state_dict(forecaster.fit_normalise(sample()).state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = min(MOST_RANDOM, parameter.shape[-1] ** -0.5)
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return net.eval()


@cache
def graph(kind: Kind) -> bytes:
    return export.to_onnx(network(kind), "forecaster")


@cache
def session(kind: Kind) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph(kind), options, providers=["CPUExecutionProvider"])


def rows(count: int = TICKS) -> NDArray[np.float32]:
    """Features of real ticks, made wild here and there, so that clipped and unclipped inputs are met."""
    features = sample().series[0].features[1000 : 1000 + count].copy()
    wild = np.random.default_rng(3).random(features.shape) < 0.02
    features[wild] *= 5.0
    return features


def run_onnx(kind: Kind, cuts: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Forecasts and ES of TICKS ticks of INSTRUMENTS instruments, in chunks that end at `cuts`, and the last state."""
    state = np.zeros((INSTRUMENTS, network(kind).state_width), np.float32)
    features, scratch, parts = rows(), new_scratch(INSTRUMENTS), []
    for first, last in pairwise([0, *cuts, TICKS]):
        packing = pack(SLOTS[first:last], scratch)
        feed = {name: values for name, values in packing._asdict().items() if name != "slots"}
        *said, state[packing.slots] = session(kind).run(
            ["forecast", "shortfall", "hidden_out"],
            feed | {"features": features[first:last], "hidden": state[packing.slots]},
        )
        parts.append(said)
    forecast, shortfall = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return forecast, shortfall, state


def walked(net: Forecaster, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Forecasts, the ES behind them, and the last state: `sequence` with both in one tensor."""
    forecast, shortfall, after = net.sequence(features, state)
    return torch.cat((forecast, shortfall), -1), after


@every_kind
def test_shapes_and_units(kind: Kind) -> None:
    forecast, shortfall, state = run_onnx(kind, [])
    assert forecast.shape == (TICKS, len(FORECAST_COLUMNS))
    assert shortfall.shape == (TICKS, len(HORIZONS))
    assert state.shape == (INSTRUMENTS, network(kind).state_width)
    column = {name: forecast[:, k] for k, name in enumerate(FORECAST_COLUMNS)}
    for horizon in HORIZONS:
        assert (column[f"volatility_{horizon}s"] > 0).all()
        assert ((column[f"probability_up_{horizon}s"] > 0) & (column[f"probability_up_{horizon}s"] < 1)).all()


@every_kind
def test_quantiles_cannot_cross_and_shortfall_lies_beyond_var_whatever_the_weights(kind: Kind) -> None:
    for seed in range(5):
        net = network(kind, seed)
        with torch.no_grad():
            said = net.sequence(torch.from_numpy(rows(300))[:, None], torch.zeros(1, net.state_width))
        forecast, shortfall = (values[:, 0].double().numpy() for values in said[:2])
        quantiles = forecast[:, np.array(evaluation.QUANTILES)]
        assert (np.diff(quantiles, axis=2) >= 0).all()
        # The VaR 97.5 % is computed anew from rounded quantiles, so it may differ by the last digit of a float32.
        widest = np.abs(quantiles).max(2)
        assert (shortfall >= baselines.value_at_risk(quantiles) - 1e-6 * widest).all()
        assert (shortfall >= -quantiles[:, :, QUANTILE_LEVELS.index(0.05)] - 1e-6 * widest).all()


@every_kind
def test_constant_prices_without_side_give_finite_forecasts(kind: Kind) -> None:
    features = ticks.compute(ticks.columns([0.5 * k for k in range(300)], [7.0] * 300)).features
    net = network(kind)
    with torch.no_grad():
        forecast, state = walked(net, torch.from_numpy(features)[:, None], torch.zeros(1, net.state_width))
    assert torch.isfinite(forecast).all()
    assert torch.isfinite(state).all()


@every_kind
def test_packed_ticks_forecast_as_lanes_do(kind: Kind) -> None:
    """Serving packs ticks of unlike instruments, chunk by chunk; training walks lanes: one network, one answer."""
    net = network(kind)
    features = torch.from_numpy(rows())
    state = torch.zeros(INSTRUMENTS, net.state_width)
    packed, scratch = torch.zeros(TICKS, len(FORECAST_COLUMNS) + len(HORIZONS)), new_scratch(INSTRUMENTS)
    with torch.no_grad():
        for first, last in pairwise([0, 1, 40, 75, 400, TICKS]):
            packing = pack(SLOTS[first:last], scratch)
            at = [torch.from_numpy(values) for values in packing[1:]]
            *said, state[packing.slots] = net(features[first:last], *at, state[packing.slots])
            packed[first:last] = torch.cat(said, 1)
        for instrument in range(INSTRUMENTS):
            mine = torch.from_numpy(instrument == SLOTS)
            alone, after = walked(net, features[mine][:, None], torch.zeros(1, net.state_width))
            assert torch.allclose(packed[mine], alone[:, 0], rtol=1e-4, atol=1e-6)
            assert torch.allclose(state[instrument], after[0], rtol=1e-4, atol=1e-5)


@every_kind
def test_lanes_cut_in_time_go_on_from_the_state(kind: Kind) -> None:
    net = network(kind)
    lanes = torch.from_numpy(rows().reshape(100, 6, -1))
    with torch.no_grad():
        whole, after = walked(net, lanes, torch.zeros(6, net.state_width))
        state, parts = torch.zeros(6, net.state_width), []
        for piece in torch.split(lanes, [3, 40, 57]):
            part, state = walked(net, piece, state)
            parts.append(part)
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-4, atol=1e-6)
    assert torch.allclose(state, after, rtol=1e-4, atol=1e-5)


@every_kind
def test_forecast_depends_on_earlier_ticks_of_the_instrument_alone(kind: Kind) -> None:
    net = network(kind)
    lanes = torch.from_numpy(rows(120).reshape(60, 2, -1))
    changed = lanes.clone()
    changed[30, 0] += 0.5
    with torch.no_grad():
        plain, _ = walked(net, lanes, torch.zeros(2, net.state_width))
        other, _ = walked(net, changed, torch.zeros(2, net.state_width))
    assert torch.equal(plain[:30], other[:30]), "what is to come changes nothing before"
    assert torch.equal(plain[:, 1], other[:, 1]), "instruments do not see each other"
    assert not torch.equal(plain[31:37, 0], other[31:37, 0]), "the past is carried on"


@every_kind
def test_onnx_equals_pytorch(kind: Kind) -> None:
    """Within 1e-5, absolute below 1 and relative above, on inputs that the export did not see."""
    for seed, n in ((1, 16), (2, 300), (3, 1000)):
        assert export.difference(network(kind), graph(kind), "forecaster", seed, n) < export.TOLERANCE
    assert len(graph(kind)) < export.LARGEST_BYTES


@every_kind
def test_graph_names_no_path_of_the_machine(kind: Kind) -> None:
    assert b".py" not in words(graph(kind))
    assert b"/home" not in words(graph(kind))


@every_kind
def test_cuts_anywhere_change_no_bit(kind: Kind) -> None:
    whole = run_onnx(kind, [])
    rng = np.random.default_rng(0)
    single = list(range(1, TICKS))
    for cuts in (single, *([*range(n, TICKS, n)] for n in (2, 3, 7, 16, 64, 512)), sorted(rng.choice(single, 30))):
        for found, expected in zip(run_onnx(kind, sorted(set(cuts))), whole, strict=True):
            assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@every_kind
def test_forecast_scales_with_the_instrument(kind: Kind) -> None:
    """Ten times the moves of everything: ten times the forecast, for the network knows no absolute scale."""
    net = forecaster.build(forecaster.SETTINGS[kind])
    net.load_state_dict(network(kind).state_dict())
    net.double()
    plain_rows = torch.from_numpy(sample().series[0].features[2000:2200]).double()
    scaled = plain_rows.clone()
    for name, column in INDEX.items():
        if "variance" in name:
            scaled[:, column] += 2 * np.log(10)
        elif "spread" in name or "impact" in name:
            scaled[:, column] += np.log(10)
        elif "momentum" in name or name in ("log_return", "drawdown"):
            scaled[:, column] *= 10
    start = torch.zeros(1, net.state_width, dtype=torch.double)
    with torch.no_grad():
        plain, _ = walked(net, plain_rows[:, None], start)
        large, _ = walked(net, scaled[:, None], start)
    up = [FORECAST_COLUMNS.index(f"probability_up_{h}s") for h in HORIZONS]
    expected = plain * 10
    expected[..., up] = plain[..., up]
    assert torch.allclose(large, expected, rtol=1e-6, atol=1e-12)


@every_kind
def test_training_lowers_the_loss(kind: Kind) -> None:
    settings = msgspec.structs.replace(
        forecaster.SETTINGS[kind], rounds=8, lanes=8, segment=512, burn_in=32, averaging=0.9
    )
    net, history = forecaster.train(sample(), settings, 0)
    lanes = forecaster.draw_lanes(sample().series, data.VALIDATION, 16, 512, np.random.default_rng(1))
    start = forecaster.build(settings)
    start.normalise.load_state_dict(net.normalise.state_dict())
    assert forecaster.validate(net, lanes, settings) < forecaster.validate(start, lanes, settings) - 0.2
    assert min(history) < history[0]
    assert np.isfinite(history).all()


@every_kind
def test_bundle_runs_in_the_pipeline_and_chunks_change_no_byte(kind: Kind, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name, copy in (("wgan", "wgan"), ("dqn", "dqn"), ("gru", kind)):
        shutil.copytree(Path(DEFAULT_MODELS) / name, models / copy)
    folder = shipped(models, kind)
    (folder / "model.onnx").write_bytes(graph(kind))
    card = inference.read_card(folder / "card.json")
    sha256 = hashlib.sha256(graph(kind)).hexdigest()
    changed = msgspec.structs.replace(card, name=kind, sha256=sha256, hidden_size=network(kind).state_width)
    (folder / "card.json").write_bytes(msgspec.json.encode(changed))
    assert inference.load(models).names[0] == f"{kind}@{folder.name}"
    file = write_sample(tmp_path / "ltc.parquet", 2_000)
    outs: list[Path] = []
    for chunk_ticks in (1_999, 64):
        outs.append(tmp_path / str(chunk_ticks))
        summary = backtest.run(file, outs[-1], models=models, chunk_ticks=chunk_ticks, quiet=True)
        assert summary.accepted > 1_900
    for written in outs[0].iterdir():
        assert written.read_bytes() == (outs[1] / written.name).read_bytes(), written.name
