"""The exact judge's server, which a module's tests share."""

import pytest

from trl_balcap.scenes.server import serve


@pytest.fixture(scope="module")
def oracle():
    """The exact judge over HTTP, without faults."""
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def fresh_counters(request):
    if "oracle" in request.fixturenames:
        request.getfixturevalue("oracle").reset_stats()
