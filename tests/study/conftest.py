"""The images and configs of the chains' tests, for all tests of studies."""

import pytest
from chain_toys import images, paths  # noqa: F401  (fixtures)


@pytest.fixture(scope='session')
def pair(paths):  # noqa: F811
    """Entries of a study of two classifiers."""
    return dict(student=paths['plain'], teacher=paths['teacher'])
