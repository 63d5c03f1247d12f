"""How a forecaster does on the test part, beside the baselines. Forecasts come from the exported graph."""

from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import conformal
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import baselines, data

CHUNK: Final = 4096
CALIBRATION_BINS: Final = 10
VOLATILITY: Final = [FORECAST_COLUMNS.index(f"volatility_{h}s") for h in HORIZONS]
UP: Final = [FORECAST_COLUMNS.index(f"probability_up_{h}s") for h in HORIZONS]
QUANTILES: Final = [
    [FORECAST_COLUMNS.index(f"quantile_{round(level * 100):02d}_{h}s") for level in QUANTILE_LEVELS] for h in HORIZONS
]


class Forecasts(NamedTuple):
    """What a forecaster says at every tick of a series."""

    forecast: NDArray[np.float32]  # [n, len(FORECAST_COLUMNS)]
    shortfall: NDArray[np.float32]  # [n, len(HORIZONS)] ES 97.5 %, log return of a loss


def forecasts(content: bytes, series: tuple[data.Series, ...], hidden: int) -> list[Forecasts]:
    """Forecasts of a graph for every tick of every series, the state carried."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [_forecast(session, one.features, hidden) for one in series]


def _forecast(session: onnxruntime.InferenceSession, features: NDArray[np.float32], width: int) -> Forecasts:
    parts = []
    hidden = np.zeros((1, width), np.float32)
    nothing = np.zeros(1, np.int64)
    for start in range(0, len(features), CHUNK):
        chunk = features[start : start + CHUNK]
        steps = np.arange(len(chunk))
        *found, hidden = session.run(
            ["forecast", "shortfall", "hidden_out"],
            {
                "features": chunk,
                "pack": steps[:, None],
                "rest": nothing[:, None],
                "carry": nothing,
                "unpack": steps,
                "last": steps[-1:],
                "hidden": hidden,
            },
        )
        parts.append(found)
    return Forecasts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Published(NamedTuple):
    """What the worker publishes of a series' forecasts."""

    forecast: NDArray[np.float64]  # [n, len(FORECAST_COLUMNS)] quantiles adjusted
    shortfall: NDArray[np.float64]  # [n] ES 97.5 % over 60 s


def publish(series: data.Series, said: Forecasts) -> Published:
    """Run the conformal adjustment over a series, from its first tick on, as a worker does."""
    settings = Settings()
    adjusted = said.forecast.astype(np.float64)
    shortfall = conformal.adjust(
        conformal.new_state(1),
        np.zeros(len(adjusted), np.int32),
        series.clock_ns,
        np.exp(series.log_price),
        series.warming,
        adjusted,
        said.shortfall,
        conformal.ConformalRules(*(getattr(settings.conformal, name) for name in conformal.ConformalRules._fields)),
        int(settings.features.session_gap_seconds * data.SECOND),
    )
    return Published(adjusted, shortfall)


class Rows:
    """Usable ticks of one part of one file, all series together."""

    def __init__(self, series: tuple[data.Series, ...], said: list[Forecasts], file: str, part: int) -> None:
        mine = [k for k, one in enumerate(series) if one.file == file]
        last = [baselines.last_value(series[k]) for k in mine]
        rows = [
            np.flatnonzero((series[k].part == part) & data.usable_rows(series[k]) & np.isfinite(v).all(1))
            for k, v in zip(mine, last, strict=True)
        ]

        def gather(columns: list[NDArray[Any]]) -> NDArray[np.float64]:
            return np.concatenate([c[r] for c, r in zip(columns, rows, strict=True)]).astype(np.float64)

        self.forecast = gather([said[k].forecast for k in mine])
        self.shortfall = gather([said[k].shortfall for k in mine])
        self.log_return = gather([series[k].log_return for k in mine])
        self.realized = gather([series[k].realized_variance for k in mine])
        self.weight = gather([series[k].weight for k in mine])
        self.last_value = gather(last)
        features = [series[k].features for k in mine]
        self.ewma = {
            seconds: gather([baselines.ewma(f, seconds) for f in features]) for seconds in baselines.EWMA_SECONDS
        }
        self.variance = np.maximum(self.forecast[:, VOLATILITY] ** 2, baselines.LEAST_VARIANCE)
        self.quantiles = self.forecast[:, np.array(QUANTILES)]

    def __len__(self) -> int:
        return len(self.weight)

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted over ticks: float64[horizons]."""
        average: NDArray[np.float64] = (values * self.weight[:, None]).sum(0) / self.weight.sum()
        return average


def evaluate(series: tuple[data.Series, ...], said: list[Forecasts]) -> dict[str, Any]:
    """Metrics of each file's test part by horizon; what baselines need is chosen on the validation part."""
    report = {}
    for file in sorted({one.file for one in series}):
        test = Rows(series, said, file, data.TEST)
        validation = Rows(series, said, file, data.VALIDATION)
        if len(test) and len(validation):
            report[file] = _evaluate(test, validation)
    return report


def _evaluate(test: Rows, validation: Rows) -> dict[str, Any]:
    by_horizon: dict[str, Any] = {}
    value_at_risk = baselines.value_at_risk(test.quantiles)
    own, exponential = (
        test.mean(baselines.fissler_ziegel(value_at_risk, shortfall, test.log_return))
        for shortfall in (test.shortfall, baselines.exponential_shortfall(test.quantiles))
    )
    for column, horizon in enumerate(HORIZONS):
        tuning = {
            s: validation.mean(baselines.qlike(v, validation.realized))[column] for s, v in validation.ewma.items()
        }
        seconds = min(tuning, key=lambda s: float(tuning[s]))
        normal = baselines.normal_quantiles(validation.ewma[seconds], validation.log_return, validation.weight)
        plain = normal.forecast(test.ewma[seconds])
        volatility = np.sqrt(test.variance)
        scale = max(float(test.mean(np.abs(test.log_return))[column]), 1e-12)
        by_horizon[f"{horizon}s"] = {
            "ticks": len(test),
            "qlike": test.mean(baselines.qlike(test.variance, test.realized))[column],
            "qlike_ewma": test.mean(baselines.qlike(test.ewma[seconds], test.realized))[column],
            "ewma_seconds": seconds,
            "qlike_last_value": test.mean(baselines.qlike(test.last_value, test.realized))[column],
            "realized_over_forecast_variance": (test.mean(test.realized)[column] / test.mean(volatility**2)[column]),
            # In units of the mean absolute return, so that data sets compare.
            "pinball": test.mean(baselines.pinball(test.quantiles, test.log_return))[column] / scale,
            "pinball_normal_ewma": test.mean(baselines.pinball(plain, test.log_return))[column] / scale,
            "fissler_ziegel": own[column],
            "fissler_ziegel_exponential_tail": exponential[column],
            "coverage": {
                f"{level:g}": test.mean((test.log_return < test.quantiles[:, :, k]).astype(float))[column]
                for k, level in enumerate(QUANTILE_LEVELS)
            },
            **_direction(test, column),
        }
    return by_horizon


def _direction(test: Rows, column: int) -> dict[str, float]:
    """Accuracy among ticks after which the price differs, against always saying what is more frequent in them.

    The calibration error is over all ticks, an unchanged price counting half, as in training.
    """
    moved = test.log_return[:, column] != 0
    weight = test.weight[moved]
    up = test.log_return[moved, column] > 0
    right = up == (test.forecast[moved, UP[column]] > 0.5)
    share = float((up * weight).sum() / weight.sum()) if moved.any() else 0.5
    return {
        "accuracy": float((right * weight).sum() / weight.sum()) if moved.any() else 0.5,
        "accuracy_majority": max(share, 1.0 - share),
        "calibration_error": calibration_error(
            test.forecast[:, UP[column]], 0.5 + 0.5 * np.sign(test.log_return[:, column]), test.weight
        ),
    }


def calibration_errors(series: tuple[data.Series, ...], said: list[Forecasts]) -> dict[str, dict[str, float]]:
    """Of the probability of a rise, on the test part of each file, by horizon; see `calibration_error`."""
    tests = {file: Rows(series, said, file, data.TEST) for file in sorted({one.file for one in series})}
    return {
        file: {f"{h}s": _direction(test, column)["calibration_error"] for column, h in enumerate(HORIZONS)}
        for file, test in tests.items()
        if len(test)
    }


def calibration_error(
    probability: NDArray[np.float64], outcome: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    """How far probabilities are from the shares that came true: the expected calibration error (Naeini et al. 2015).

    Parameters
    ----------
    probability : float64[n]
    outcome : float64[n]
        0 to 1.
    weight : float64[n]
        Not below 0, not all 0.

    Returns
    -------
    float
        Mean of |probability - outcome| over CALIBRATION_BINS bins of as many rows each, by their weight; 0 at best.
    """
    bins = np.array_split(np.argsort(probability, kind="stable"), CALIBRATION_BINS)
    return float(sum(abs(((probability[b] - outcome[b]) * weight[b]).sum()) for b in bins) / weight.sum())


def summarise(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The first report's numbers, each with mean and standard deviation over the seeds where it varies."""
    first = reports[0]
    merged: dict[str, Any] = {}
    for key, value in first.items():
        values = [report[key] for report in reports]
        if isinstance(value, dict):
            merged[key] = summarise(values)
        elif len(set(values)) == 1:
            merged[key] = value
        else:
            merged[key] = {"shipped": value, "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    return merged


def worse_than_ewma(report: dict[str, Any]) -> list[str]:
    """Files and horizons on which a report's QLIKE is not lower than EWMA's, as the card lists them."""
    return [
        f"{file} {horizon}"
        for file, horizons in report.items()
        for horizon, numbers in horizons.items()
        if numbers["qlike"] >= numbers["qlike_ewma"]
    ]
