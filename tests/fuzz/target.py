"""The process that is fuzzed: atheris watches which branches of ours an input reaches, and makes the next from it."""

import importlib
import os
import pickle
import pkgutil
import sys
from pathlib import Path

import atheris
import msgspec

import stream.core
from stream import encoding, inference, snapshots  # noqa: F401  as below

for kernels in pkgutil.iter_modules(stream.core.__path__, "stream.core."):
    importlib.import_module(kernels.name)  # before atheris looks: numba compiles Python's own instructions only

with atheris.instrument_imports(include=["stream.decoding", "stream.explanations", "stream.pipeline"]):
    from stream.pipeline import compile_kernels

from tests.fuzz.inputs import messages  # noqa: E402
from tests.fuzz.subject import Broken, Subject  # noqa: E402


def main() -> None:
    """`python -m tests.fuzz.target INPUTS FOLDER [libFuzzer's options]`: writes counts.json, and broken.pickle."""
    inputs, folder = int(sys.argv[1]), Path(sys.argv[2])
    subject = Subject()
    compile_kernels(subject.models, subject.settings)

    def end(status: int) -> None:
        (folder / "counts.json").write_bytes(msgspec.json.encode(subject.counts))
        os._exit(status)  # libFuzzer's own end runs nothing of Python's

    def one(data: bytes) -> None:
        try:
            subject.feed(messages(data))
        except Broken as error:
            (folder / "broken.pickle").write_bytes(pickle.dumps([list(map(tuple, each)) for each in error.inputs]))
            print(f"broken: {error}", file=sys.stderr, flush=True)
            end(1)
        if subject.counts.inputs == inputs:
            end(0)

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
