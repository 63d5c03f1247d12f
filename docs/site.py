"""Lays the pages out for Zensical and has it build them; a link that leads nowhere fails the build.

The pages are written to be read in the tree as well, so they link to the README above them and to files of code.
Here the README becomes the first page, and such files are copied beside the pages. The pages of `docs.reference`
are made from code and stand nowhere else.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs import reference
from stream.config import ROOT

FOLDER: Final = ROOT / "docs"
CONFIG: Final = FOLDER / "zensical.toml"
MOVED: Final = {Path("README.md"): Path("index.md"), Path("CHANGELOG.md"): Path("changelog.md")}
"""Pages that lie outside docs/, and where they are on the site."""
CODE: Final = Path("code")
"""Where files outside docs/ that a page links to are on the site."""
LINK: Final = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")


def build(staging: Path, site: Path) -> int:
    """Build the site into the folder `site`; gives Zensical's exit status.

    Parameters
    ----------
    staging
        Folder for the pages as Zensical reads them, emptied first; on the file system of `site`.
    site
        Folder for the site, emptied first.
    """
    lay_out(staging)
    shutil.rmtree(site, ignore_errors=True)
    shutil.copyfile(CONFIG, staging / CONFIG.name)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=staging, env=os.environ | {"NO_COLOR": "1"}, check=False)
    if done.returncode == 0:
        (staging / "site").rename(site)  # Zensical builds inside its own folder only
    return done.returncode


def lay_out(staging: Path) -> None:
    """Write all pages, and the files they link to, into `staging`/docs.

    Raises
    ------
    FileNotFoundError
        If a page links to a file that is not there.
    """
    shutil.rmtree(staging, ignore_errors=True)
    out = staging / "docs"
    for file, place in pages():
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            target.write_text(_moved(file, place, out), encoding="utf-8")
        else:
            shutil.copyfile(file, target)
    for name, text in reference.pages().items():
        target = out / "reference" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def pages() -> Iterator[tuple[Path, Path]]:
    """Each file of the site that is not made, and its place there."""
    for source, place in MOVED.items():
        yield ROOT / source, place
    for file in sorted(FOLDER.rglob("*")):
        place = file.relative_to(FOLDER)
        # The code of the site itself lies at the top; that of the examples is part of the site.
        ours = len(place.parts) == 1 and file.suffix in {".py", ".toml"}
        if file.is_file() and "__pycache__" not in place.parts and not ours:
            yield file, place


def _moved(file: Path, place: Path, out: Path) -> str:
    """The text of a page with links that hold on the site."""

    def link(found: re.Match[str]) -> str:
        label, path, anchor = found[1], found[2], found[3] or ""
        target = (file.parent / path).resolve()
        if not target.exists():
            raise FileNotFoundError(f"{file}: links to {path}, which is not there")
        label = LINK.sub(link, label)  # a picture inside a link
        if target.is_dir():
            return label
        return f"[{label}]({os.path.relpath(_place(target, out), place.parent)}{anchor})"

    return LINK.sub(link, file.read_text(encoding="utf-8"))


def _place(target: Path, out: Path) -> Path:
    """Where a file that a page links to is on the site; one outside docs/ is copied there."""
    if target.is_relative_to(FOLDER):
        return target.relative_to(FOLDER)
    inside = target.relative_to(ROOT)
    if inside in MOVED:
        return MOVED[inside]
    copy = out / CODE / inside
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(target, copy)
    return CODE / inside
