"""What every test shares: settings that no variable of the caller's shell changes, and Hypothesis' profile."""

import os

import pytest
from hypothesis import HealthCheck, settings

from stream.config import ENV_PREFIX

# No deadline: the first example of a property pays for numba's compiler. A failure prints the blob that repeats it.
settings.register_profile(
    "tapewatch", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("tapewatch")


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
