"""Private servers for the tests, on free loopback ports."""

from __future__ import annotations

import os
from typing import NoReturn


def need(reason: str) -> NoReturn:
    """A server is missing: in CI a failure, elsewhere the tests that need it are skipped."""
    import pytest  # not at the top: a benchmark starts servers without it

    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
