import pytest

from tests.endtoend.served import penstock_serve


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """One server for all tests that leave it as they found it."""
    with penstock_serve(tmp_path_factory.mktemp("served")) as server:
        yield server
