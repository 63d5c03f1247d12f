"""`python -m docs`: build the site into build/site, strictly."""

import sys

from docs.site import build
from stream.config import ROOT

sys.exit(build(ROOT / "build" / "manual", ROOT / "build" / "site"))
