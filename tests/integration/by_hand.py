"""A worker with the real pipeline and models by hand.

`python -m tests.integration.by_hand SETTINGS [fragile|starved|crammed]`, settings as JSON. Where a price moves much,
fragile models fail, starved ones find no memory, and crammed is a worker that finds none when the chunk is computed.
"""

import logging
import sys
from typing import cast

import msgspec

from stream import app
from stream.config import Settings
from stream.errors import TapewatchError
from stream.inference import Models
from stream.metrics import Metrics
from stream.pipeline import Output, Pipeline, compile_kernels
from stream.transport import Delivery
from tests.fakes import FakeModels, FragileModels, StarvedModels, moves_much


def crammed(metrics: Metrics, delivery: Delivery, computed: Output) -> None:
    """In the place of `telemetry.note_computed`: the state holds the chunk by now, and nothing of it is published."""
    if moves_much(computed.features):
        raise StarvedModels.failure


def main() -> int:
    """Run until a signal; one line on an error, as the command line does."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("tapewatch").setLevel(logging.INFO)
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    kind = {"fragile": FragileModels, "starved": StarvedModels}.get("".join(sys.argv[2:]), FakeModels)
    models = cast(Models, kind())
    if sys.argv[2:] == ["crammed"]:
        app.note_computed = crammed  # type: ignore[attr-defined]
    compile_kernels(models, settings)
    try:
        app.work(settings, lambda partition: Pipeline(settings, models, partition), Metrics())
    except TapewatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
