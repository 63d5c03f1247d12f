"""The pure core: numpy and numba only, no clock, no I/O.

numba's cache notices a change of the file of a kernel, not of a file that the kernel calls into. So the cache lives
in a folder named after the text of all of the core.
"""

import hashlib
from pathlib import Path

import numba

_HERE = Path(__file__).resolve().parent
_SOURCES = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(_HERE.glob("*.py")))).hexdigest()
numba.config.CACHE_DIR = str(_HERE / "__pycache__" / f"kernels-{_SOURCES[:12]}")
