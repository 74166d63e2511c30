"""Private servers for the tests, on free loopback ports."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def need(reason: str) -> NoReturn:
    """A server is missing: in CI a failure, elsewhere the tests that need it are skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
