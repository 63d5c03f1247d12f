"""A forecaster without training, as a bundle of one's own: python own_forecaster.py FOLDER

The plain forecast that a model has to beat: returns are normal, with the instrument's own variance of the last minute
(feature log_grid_variance_60s, RiskMetrics 1996) over each horizon. Writes FOLDER/ewma/1/model.onnx and card.json.
"""

import hashlib
import math
import sys
from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stream import catalogue
from stream.config import ROOT
from stream.core.features import FEATURES, INDEX
from stream.core.results import FORECAST_COLUMNS
from stream.inference import OPSET, Card
from stream.messages import HORIZONS

TAIL = 0.025
normal = NormalDist()
shortfall_of_one = normal.pdf(normal.inv_cdf(TAIL)) / TAIL  # ES 97.5 % of a standard normal loss


def of_one(column: str) -> float:
    """A forecast column per unit of the standard deviation of 1 s."""
    name, horizon = column.rsplit("_", 1)
    over_horizon = math.sqrt(int(horizon.rstrip("s")))
    if name.startswith("quantile"):
        return over_horizon * normal.inv_cdf(int(name.removeprefix("quantile_")) / 100)
    return over_horizon if name == "volatility" else 0.0


constants = {
    "variance": np.array([INDEX["log_grid_variance_60s"]], np.int64),
    "half": np.float32(0.5),
    "scale": np.array([of_one(column) for column in FORECAST_COLUMNS], np.float32),
    "shift": np.array([0.5 * column.startswith("probability_up") for column in FORECAST_COLUMNS], np.float32),
    "tail": np.array([shortfall_of_one * horizon**0.5 for horizon in HORIZONS], np.float32),
}
nodes = [
    helper.make_node("Gather", ["features", "variance"], ["log_variance"], axis=1),  # [n, 1]
    helper.make_node("Mul", ["log_variance", "half"], ["log_deviation"]),
    helper.make_node("Exp", ["log_deviation"], ["deviation"]),
    helper.make_node("Mul", ["deviation", "scale"], ["scaled"]),
    helper.make_node("Add", ["scaled", "shift"], ["forecast"]),
    helper.make_node("Mul", ["deviation", "tail"], ["shortfall"]),
    helper.make_node("Identity", ["hidden"], ["hidden_out"]),  # nothing to carry on: one number, which stays 0
]
# Which tick is which step of a recurrent network. Every forecaster is given them; this one has no use for them.
axes = {"pack": 2, "rest": 2, "carry": 1, "unpack": 1, "last": 1}
graph = helper.make_graph(
    nodes,
    "ewma",
    [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(FEATURES)]),
        *(
            helper.make_tensor_value_info(name, TensorProto.INT64, [f"{name}_{axis}" for axis in range(number)])
            for name, number in axes.items()
        ),
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["m", 1]),
    ],
    [
        helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["n", len(FORECAST_COLUMNS)]),
        helper.make_tensor_value_info("shortfall", TensorProto.FLOAT, ["n", len(HORIZONS)]),
        helper.make_tensor_value_info("hidden_out", TensorProto.FLOAT, ["m", 1]),
    ],
    [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
content = model.SerializeToString()

card = Card(
    family="forecaster",
    name="ewma",
    version="1",
    features=list(FEATURES),
    outputs=list(FORECAST_COLUMNS),
    opset=OPSET,
    sha256=hashlib.sha256(content).hexdigest(),
    normal=catalogue.find(ROOT / "models", "gru").card.normal,  # medians of the features: yours, if you train
    hidden_size=1,
    notes=["Normal returns with the variance of the last minute; not trained."],
)
folder = Path(sys.argv[1]) / card.name / card.version
folder.mkdir(parents=True)
(folder / "model.onnx").write_bytes(content)
(folder / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(card)))
print(f"wrote {folder}")
