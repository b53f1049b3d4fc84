"""Networks of configs are probed with a smaller image than in a run, if they can run on it."""

import pytest

from mmkd.plan import probe


@pytest.fixture(autouse=True)
def smaller_image(monkeypatch):
    monkeypatch.setattr(probe, 'SIZES', (128, *probe.SIZES))
