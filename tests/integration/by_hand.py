"""A worker with the real pipeline and models by hand.

`python -m tests.integration.by_hand SETTINGS [fragile|starved]`, settings as JSON. Where a price moves much, fragile
models fail, and starved ones find no memory.
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
from stream.pipeline import Pipeline, compile_kernels
from tests.fakes import FakeModels, FragileModels, StarvedModels


def main() -> int:
    """Run until a signal; one line on an error, as the command line does."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("tapewatch").setLevel(logging.INFO)
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    kind = {"fragile": FragileModels, "starved": StarvedModels}.get("".join(sys.argv[2:]), FakeModels)
    models = cast(Models, kind())
    compile_kernels(models, settings)
    try:
        app.work(settings, lambda partition: Pipeline(settings, models, partition), Metrics())
    except TapewatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
