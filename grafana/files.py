"""The dashboards as the JSON files that Grafana reads."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards import BOARDS
from grafana.panels import Board, build

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"


def path_of(board: Board) -> Path:
    """Its file."""
    return FOLDER / f"{board.uid.removeprefix('tapewatch-')}.json"


def text_of(board: Board) -> str:
    """Its JSON."""
    return json.dumps(build(board), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def write() -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        path_of(board).write_text(text_of(board), encoding="utf-8")
