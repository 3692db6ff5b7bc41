"""Fixtures for the tests of engines."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def pytorch_runs_networks() -> None:
    """Leave ``auto`` as it is shipped, in place of the fixture for all other tests."""
