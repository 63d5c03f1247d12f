"""What runs in a Tapewatch worker: ticks in, forecasts, risk, actions and alerts out. Never imports torch."""

import hashlib
import os
from pathlib import Path

__version__ = "0.1.0"


def _kernel_cache() -> str:
    """Folder for numba's cache, named after the text of all kernels.

    numba notices a change of the file of a kernel, not of a file that the kernel calls into.
    """
    core = Path(__file__).resolve().parent / "core"
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(core.glob("*.py"))))
    return str(core / "__pycache__" / f"kernels-{sources.hexdigest()[:12]}")


# numba reads this when it is first imported, which no module of ours does before this one has run.
os.environ.setdefault("NUMBA_CACHE_DIR", _kernel_cache())
