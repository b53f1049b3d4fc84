"""What the tests of checkpoints share."""

import pytest
from chain_toys import images, paths  # noqa: F401  (fixtures)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.pth'
