"""What the programs have in common that measure a model that ships and write what they found into its card."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from stream import catalogue
from stream.config import DEFAULT_MODELS
from stream.errors import TapewatchError
from training import data

Measure = Callable[[Path, list[Path]], tuple[str, Mapping[str, Any]]]
"""Of a folder of models and files of ticks: measures, writes the card, gives the model's name and the figures."""


def run(program: str, description: str, measure: Measure) -> int:
    """`python -m PROGRAM [DATA]... [--models DIR]`; the status to exit with."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("files", nargs="*", type=Path, metavar="DATA", help="what the model was trained on")
    parser.add_argument("--models", type=Path, default=Path(DEFAULT_MODELS), metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        name, found = measure(options.models, data.files_of(options.files))
    except TapewatchError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    print(f"in the card of {name}:")
    for figure, value in catalogue.flat(dict(found)):
        print(f"  {figure}: {value}")
    return 0
