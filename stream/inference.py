"""Model bundles, and the one ONNX Runtime session that runs all heads of a chunk in one call.

A bundle is models/<name>/<version>/ with model.onnx and card.json; there is one of each family:

- forecaster: features and state -> the forecast distribution, its expected shortfall, and the state to carry on. The
  state is a row of numbers for each instrument, as many as the card says, zeros at first: hidden states, a window, what
  convolutions look back on.
- critic: features and window -> a score, higher is more anomalous; the card's table makes it a tail probability.
- policy: features and forecast -> action values and expected rewards, for each position held.

A bundle of one more family, generator, makes windows of trades of features and noise; no worker runs it.

Normalisation is inside the graphs. At load they are joined into one. Rows come out with the same bits whatever
the chunk they came in with (tests/property/test_inference_chunks.py).

Measured with `python -m tests.benchmark.inference` on one core of an AMD EPYC shared with other work, all heads and the
packing, chunks of 512 ticks: 1.34 us a tick for 6 or 16 instruments, 1.48 for one or for 512, 2.3 for 1,000 with Zipf's
frequencies; one tick alone 64 us.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
import onnx
import onnx.compose
import onnxruntime
from numpy.typing import NDArray

from stream import messages, roles
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.packing import Packing, pack
from stream.core.results import FORECAST_COLUMNS
from stream.errors import ModelMismatch

FAMILIES: Final = ("forecaster", "critic", "policy")
"""Of the models that answer. A bundle of the family generator answers nothing: `tapewatch simulate` runs it."""
OPSET: Final = 18
"""Of every graph: they are joined into one, in which an operation of another opset could mean something else."""
NOISE: Final = 8
"""Random numbers behind each trade that a generator makes."""
ACTION_COLUMNS: Final = tuple(f"{held}_{action}" for held in messages.ACTIONS for action in messages.ACTIONS)
"""Order of action values and rewards: position held, then action."""

INPUTS: Final = {
    "forecaster": ("features", "pack", "rest", "carry", "unpack", "last", "hidden"),
    "critic": ("features", "window"),
    "policy": ("features", "forecast"),
    "generator": ("features", "noise"),
}
OUTPUTS: Final = {
    "forecaster": ("forecast", "shortfall", "hidden_out"),
    "critic": ("critic_score",),
    "policy": ("action_values", "rewards"),
    "generator": ("trades",),
}
_COLUMNS: Final = {
    "forecaster": FORECAST_COLUMNS,
    "critic": ("critic_score",),
    "policy": (*(f"value_{c}" for c in ACTION_COLUMNS), *(f"reward_{c}" for c in ACTION_COLUMNS)),
    "generator": WINDOW_COLUMNS,
}
_WIDTHS: Final = {
    "features": len(FEATURES),
    "forecast": len(FORECAST_COLUMNS),
    "shortfall": len(messages.HORIZONS),
    "critic_score": 1,
} | {name: len(ACTION_COLUMNS) for name in ("action_values", "rewards")}


Trust = Callable[[Path, bytes], None]
"""Passes a card.json by its place and content, or raises ModelMismatch: see `signatures`."""

Family = Literal["forecaster", "critic", "policy", "generator"]
MOST_HIDDEN: Final = 65_535  # what a snapshot has room to name


class DataFile(msgspec.Struct, frozen=True):
    """A file that a model was trained, validated and tested on, split by time."""

    name: str
    sha256: str
    rows: int
    symbols: list[str]
    first_ns: int
    last_ns: int
    validation_ns: int  # ticks before it are the training part, less an embargo
    test_ns: int  # ticks from it on are the test part


class Calibration(msgspec.Struct, frozen=True):
    """Score -> share of normal ticks below it: piecewise linear, rising."""

    score: list[float]
    probability: list[float]


class Histogram(msgspec.Struct, frozen=True):
    """One feature over the normal ticks of the training part of each file, in the order of the card's data."""

    edges: list[float]  # rising; the outermost bins are open
    shares: list[list[float]]  # of each file, one more than edges


class Card(msgspec.Struct, frozen=True):
    """card.json: what a bundle is, what it was trained on, and how it did."""

    family: Family
    name: str
    version: str
    features: list[str]
    outputs: list[str]
    opset: int
    sha256: str  # of model.onnx
    normal: list[float]  # median of each feature over the training part
    window: int = 0  # trades in the critic's window; 0: none
    window_columns: list[str] = []
    hidden_size: int = 0  # numbers that a forecaster carries for each instrument, whatever its kind makes of them
    calibration: Calibration | None = None
    data: list[DataFile] = []
    split: str = ""
    seeds: list[int] = []
    hyperparameters: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    notes: list[str] = []
    git_commit: str = ""
    libraries: dict[str, str] = {}
    histograms: list[Histogram] = []  # one a feature of a forecaster's


class Inference(NamedTuple):
    """Raw outputs of the heads for the `n` accepted ticks of `m` instruments of a chunk."""

    forecast: NDArray[np.float32]  # [n, len(FORECAST_COLUMNS)]
    shortfall: NDArray[np.float32]  # [n, len(HORIZONS)] ES 97.5 %, log return of a loss
    hidden: NDArray[np.float32]  # [m, hidden_size] state of the instruments after the chunk
    score: NDArray[np.float32]  # [n] of the critic, higher is more anomalous
    action_values: NDArray[np.float32]  # [n, 9] ACTION_COLUMNS
    rewards: NDArray[np.float32]  # [n, 9] expected log return after costs, ACTION_COLUMNS


class Models:
    """The loaded bundles of the three families, run as one graph."""

    names: tuple[str, str, str]
    """name@version of forecaster, critic and policy."""
    digests: tuple[str, str, str]
    """`digest` of each."""
    hidden_size: int
    calibration: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Scores and probabilities of the critic's table: anomaly = np.interp(score, *calibration), in (0, 1)."""
    normal: NDArray[np.float32]
    """[len(FEATURES)] each feature's median in training."""

    def __init__(self, forecaster: "Bundle", critic: "Bundle", policy: "Bundle") -> None:
        cards = (forecaster.card, critic.card, policy.card)
        self.cards: Final = cards
        self.names = (named(cards[0]), named(cards[1]), named(cards[2]))
        self.digests = (digest(cards[0]), digest(cards[1]), digest(cards[2]))
        self.hidden_size = forecaster.card.hidden_size
        table = critic.card.calibration
        if table is None:
            raise ModelMismatch(f"{critic.folder}: the card holds no calibration, which a critic needs")
        self.calibration = (np.array(table.score), np.array(table.probability))
        self.normal = np.array(forecaster.card.normal, np.float32)
        graph = _join(forecaster.graph, critic.graph, policy.graph)
        self._session: Final = new_session(graph.SerializeToString())
        self._check(forecaster, critic, policy)

    def run(
        self,
        features: NDArray[np.float32],
        window: NDArray[np.float32],
        packing: Packing,
        hidden: NDArray[np.float32],
    ) -> Inference:
        """All heads for the accepted ticks of a chunk, in one call.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
        window : float32[n, WINDOW, len(WINDOW_COLUMNS)]
        packing
            `packing.pack` of the ticks' slots.
        hidden : float32[m, hidden_size]
            Carried state of the instruments `packing.slots`; zeros for one that is new.
        """
        forecast, shortfall, state, score, values, rewards = self._session.run(
            _RESULTS,
            {
                "features": features,
                "window": window,
                "pack": packing.pack,
                "rest": packing.rest,
                "carry": packing.carry,
                "unpack": packing.unpack,
                "last": packing.last,
                "hidden": hidden,
            },
        )
        return Inference(forecast, shortfall, state, score[:, 0], values, rewards)

    def _check(self, *bundles: "Bundle") -> None:
        """Run two ticks: a graph whose shapes do not fit together shows here and not in the stream."""
        zeros = np.zeros
        packing = pack(np.zeros(2, np.int32), np.full(1, -1, np.int64))
        try:
            out = self.run(
                zeros((2, len(FEATURES)), np.float32),
                zeros((2, WINDOW, len(WINDOW_COLUMNS)), np.float32),
                packing,
                zeros((1, self.hidden_size), np.float32),
            )
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises types of its own, without a common base
            raise ModelMismatch(f"models {', '.join(self.names)} do not run: {_first_line(error)}") from None
        for values, name, shape in (
            (out.forecast, "forecast", (2, len(FORECAST_COLUMNS))),
            (out.shortfall, "shortfall", (2, len(messages.HORIZONS))),
            (out.hidden, "hidden_out", (1, self.hidden_size)),
            (out.score, "critic_score", (2,)),
            (out.action_values, "action_values", (2, len(ACTION_COLUMNS))),
            (out.rewards, "rewards", (2, len(ACTION_COLUMNS))),
        ):
            if values.shape != shape or values.dtype != np.float32:
                owner = next(b for b in bundles if name in OUTPUTS[b.card.family])
                raise ModelMismatch(
                    f"{owner.folder}: output {name} is {values.dtype}{list(values.shape)} for 2 ticks, "
                    f"float32{list(shape)} is needed"
                )
            if not np.isfinite(values).all():
                raise ModelMismatch(f"models {', '.join(self.names)}: output {name} is not finite for features of 0")


class Bundle(NamedTuple):
    """One checked bundle, not yet joined with the others."""

    folder: Path
    card: Card
    graph: onnx.ModelProto


_RESULTS: Final = [name for family in FAMILIES for name in OUTPUTS[family]]
_DECODER: Final = msgspec.json.Decoder(Card)


def load(folder: Path, trust: Trust | None = None) -> Models:
    """Load the bundles under `folder` that should answer: of each family the newest, the forecaster as its roles say.

    Raises
    ------
    ModelMismatch
        If the folder or a family is missing, or a bundle is damaged or made for other features or shapes.
    """
    if not folder.is_dir():
        raise ModelMismatch(f"models folder {folder} does not exist: name one with --models, or run `make models`")
    cards = [read_card(file, trust) for file in sorted(folder.glob("*/*/card.json"))]
    chosen = [in_front(folder, family, cards, trust) for family in FAMILIES]
    return Models(*(load_bundle(folder / card.name / card.version, trust) for card in chosen))


def in_front(folder: Path, family: str, cards: Sequence[Card], trust: Trust | None = None) -> Card:
    """Which of the cards in a folder of models stands for the model of a family that should answer.

    Raises
    ------
    ModelMismatch
        If there is none, nothing says which of two of one version is meant, or the roles do not pass `trust`.
    """
    held = roles.read(folder, trust) if family == "forecaster" else roles.Roles()
    ours = [card for card in cards if card.family == family]
    ranked = roles.champions(ours, held)
    if not ranked:
        wanted = f" {held.champion}, the champion in {roles.FILE}," if ours and held.champion else ""
        raise ModelMismatch(
            f"models folder {folder} holds no bundle{wanted} of family {family} (name/version/card.json)"
        )
    other = roles.rival(ranked[0], ranked)
    if other is not None:
        raise ModelMismatch(undecided(folder, ranked[0], other))
    return ranked[0]


def undecided(folder: Path, one: Card, other: Card) -> str:
    """What to do where two bundles could answer."""
    advice = "remove one, or give the one to use a higher version"
    if one.family == "forecaster":
        advice = f"say which: `tapewatch models promote {named(other)}`, or {named(one)}"
    return (
        f"{folder} holds two bundles of family {one.family} with version {one.version}: {other.name} and {one.name}; "
        f"{advice}"
    )


def load_named(folder: Path, names: Sequence[str], trust: Trust | None = None) -> Models:
    """Load the bundles name@version of forecaster, critic and policy under `folder`.

    Raises
    ------
    ModelMismatch
        If one is not there, of another family than it should be, damaged, or does not fit.
    """
    bundles = []
    for family, wanted in zip(FAMILIES, names, strict=True):
        name, _, version = wanted.partition("@")
        if not (folder / name / version / "card.json").is_file():
            raise ModelMismatch(f"models folder {folder} does not hold {wanted}, the {family} that results name")
        bundle = load_bundle(folder / name / version, trust)
        if (bundle.card.family, named(bundle.card)) != (family, wanted):
            raise ModelMismatch(
                f"{bundle.folder} holds {bundle.card.family} {named(bundle.card)}, results name {family} {wanted}"
            )
        bundles.append(bundle)
    return Models(*bundles)


def load_bundle(folder: Path, trust: Trust | None = None) -> Bundle:
    """Read and check one bundle; `trust` sees the very bytes of the card that the rest is held against.

    Raises
    ------
    ModelMismatch
        Naming the folder, what the bundle has and what is needed.
    """
    card = read_card(folder / "card.json", trust)
    _check_card(folder, card)
    graph = _read_graph(folder / "model.onnx", card)
    _check_runtime(folder, card, graph)
    for what, found, needed in (
        ("inputs", [i.name for i in graph.graph.input], INPUTS[card.family]),
        ("outputs", [o.name for o in graph.graph.output], OUTPUTS[card.family]),
    ):
        if set(found) != set(needed):
            missing = ", ".join(name for name in needed if name not in found)
            raise ModelMismatch(
                f"{folder}: model.onnx has the {what} {', '.join(found)}; a {card.family} has {', '.join(needed)}"
                f"{f'; missing: {missing}' if missing else ''}"
            )
    _check_widths(folder, card, graph)
    return Bundle(folder, card, graph)


def named(card: Card) -> str:
    """name@version."""
    return f"{card.name}@{card.version}"


def digest(card: Card) -> str:
    """Of everything in a bundle that results depend on: the graph, and what of the card stands behind it."""
    content = msgspec.json.encode((card.sha256, card.hidden_size, card.calibration))
    return hashlib.sha256(content).hexdigest()[:32]


def read_card(file: Path, trust: Trust | None = None) -> Card:
    """Decode a card.json; what it says is not yet held against the graph.

    Raises
    ------
    ModelMismatch
        If the file cannot be read, is not trusted, or is no card.
    """
    try:
        content = file.read_bytes()
        if trust is not None:
            trust(file, content)
        return _DECODER.decode(content)
    except OSError as error:
        raise ModelMismatch(f"cannot read {file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelMismatch(f"{file} is not a model card: {error}") from None


def _check_card(folder: Path, card: Card) -> None:
    _same(folder, "features", card.features, list(FEATURES))
    _same(folder, "outputs", card.outputs, list(_COLUMNS[card.family]))
    if len(card.normal) != len(FEATURES):
        raise ModelMismatch(f"{folder}: card.json holds {len(card.normal)} normal values, {len(FEATURES)} are needed")
    if card.family == "critic":
        if card.window != WINDOW:
            raise ModelMismatch(f"{folder}: made for windows of {card.window} trades, this worker makes {WINDOW}")
        _same(folder, "window_columns", card.window_columns, list(WINDOW_COLUMNS))
        _check_calibration(folder, card.calibration)
    if card.family == "forecaster" and not 1 <= card.hidden_size <= MOST_HIDDEN:
        raise ModelMismatch(f"{folder}: hidden_size = {card.hidden_size}, from 1 to {MOST_HIDDEN:,} is needed")


def _check_runtime(folder: Path, card: Card, graph: onnx.ModelProto) -> None:
    """Refuse what this worker does not run as it was made: a graph of another opset, or checked by a newer runtime.

    An older runtime is no reason: ONNX Runtime runs what earlier releases of it ran.
    """
    opset = max((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset != OPSET:
        raise ModelMismatch(f"{folder}: model.onnx is of ONNX opset {opset}, this worker joins graphs of opset {OPSET}")
    if card.opset != opset:
        raise ModelMismatch(f"{folder}: card.json says ONNX opset {card.opset}, model.onnx is of opset {opset}")
    runtime = card.libraries.get("onnxruntime", "")
    if _release(runtime) > _release(onnxruntime.__version__):
        raise ModelMismatch(
            f"{folder}: made with ONNX Runtime {runtime}, this worker has the older {onnxruntime.__version__}: "
            "install a newer one, or make the bundle again with this one"
        )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number, as in 1.32.0; nothing of what is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _same(folder: Path, what: str, found: list[str], needed: list[str]) -> None:
    """Refuse names that differ, saying which."""
    if found == needed:
        return
    unknown = [name for name in found if name not in needed]
    missing = [name for name in needed if name not in found]
    moved = [name for name, other in zip(found, needed, strict=False) if name != other]
    if unknown or missing:
        details = [f"unknown here: {', '.join(unknown)}"] if unknown else []
        details += [f"missing in the bundle: {', '.join(missing)}"] if missing else []
    else:
        details = [f"in another order, from {moved[0]} on"] if moved else [f"{len(found)} of them, not {len(needed)}"]
    raise ModelMismatch(f"{folder}: made for other {what} than this worker's: {'; '.join(details)}")


def _check_calibration(folder: Path, table: Calibration | None) -> None:
    if table is None or len(table.score) < 2 or len(table.score) != len(table.probability):
        raise ModelMismatch(f"{folder}: calibration needs at least 2 scores and as many probabilities")
    score, probability = np.array(table.score), np.array(table.probability)
    rising = bool((np.diff(score) > 0).all() and (np.diff(probability) >= 0).all())
    if not (rising and probability[0] > 0 and probability[-1] < 1):
        raise ModelMismatch(f"{folder}: calibration must rise from above 0 to below 1")


def _read_graph(file: Path, card: Card) -> onnx.ModelProto:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelMismatch(f"cannot read {file}: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != card.sha256:
        raise ModelMismatch(f"{file} has sha256 {found[:12]}..., its card says {card.sha256[:12]}...: it was changed")
    try:
        graph = onnx.load_from_string(content)
        onnx.checker.check_model(graph)
    except Exception as error:  # noqa: BLE001  protobuf and onnx raise types of their own
        raise ModelMismatch(f"{file} is no ONNX graph: {_first_line(error)}") from None
    return graph


def _check_widths(folder: Path, card: Card, graph: onnx.ModelProto) -> None:
    """Refuse inputs and outputs whose fixed dimensions are not the worker's."""
    widths = _WIDTHS | {"hidden": card.hidden_size, "hidden_out": card.hidden_size, "window": len(WINDOW_COLUMNS)}
    widths |= {"noise": NOISE, "trades": len(WINDOW_COLUMNS)}
    for value in (*graph.graph.input, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        width = widths.get(value.name)
        if width is not None and dims and dims[-1].dim_value not in (0, width):
            raise ModelMismatch(f"{folder}: {value.name} is {dims[-1].dim_value} wide, {width} is needed")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _join(*graphs: onnx.ModelProto) -> onnx.ModelProto:
    """One graph of all heads: inner names get the family as prefix, inputs of one name are one input.

    Equal constants become one, so that ONNX Runtime sees where two heads compute the same, as their normalisation.
    """
    joined = onnx.GraphProto(name="heads")
    outer_names = {name for family in FAMILIES for name in (*INPUTS[family], *OUTPUTS[family])}
    known: set[str] = set()
    constants: dict[bytes, str] = {}
    for family, model in zip(FAMILIES, graphs, strict=True):
        graph = onnx.compose.add_prefix(model, f"{family}/").graph
        names = {f"{family}/{name}": name for name in outer_names} | _share(graph, constants)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        joined.node.extend(graph.node)
        joined.initializer.extend(value for value in graph.initializer if value.name not in names)
        for value in (*graph.output, *graph.input):
            value.name = names[value.name]
        joined.input.extend(value for value in graph.input if value.name not in known)
        joined.output.extend(graph.output)
        known.update(value.name for value in (*graph.input, *graph.output))
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(joined, opset_imports=opsets, ir_version=max(g.ir_version for g in graphs))


def _share(graph: onnx.GraphProto, constants: dict[bytes, str]) -> dict[str, str]:
    """Name of each constant of `graph` that `constants` already holds -> the name it has there."""
    shared = {}
    for value in graph.initializer:
        content = onnx.TensorProto()
        content.CopyFrom(value)
        content.name = ""
        first = constants.setdefault(content.SerializeToString(deterministic=True), value.name)
        if first != value.name:
            shared[value.name] = first
    return shared


def new_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on one thread: a worker uses more cores by being started more often.

    Raises
    ------
    ModelMismatch
        If ONNX Runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises types of its own, without a common base
        raise ModelMismatch(f"ONNX Runtime refuses the graph: {_first_line(error)}") from None
