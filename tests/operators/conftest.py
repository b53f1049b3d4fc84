"""mmcv's Python code on mmkd's operators, and on the compiled ones where there are any."""

import inspect
import sys

import mmcv.ops  # noqa: F401  (imports the extension)
import pytest
import torch

import mmkd  # noqa: F401  (provides the extension)
from mmkd.operators.extension import own_operators

EXTENSION = sys.modules['mmcv._ext']
OWN = own_operators()
COMPILED = {
    name: operator
    for name in OWN
    if inspect.isbuiltin(operator := inspect.unwrap(getattr(EXTENSION, name)))
}


@pytest.fixture
def own(monkeypatch):
    """mmkd's operators are those of mmcv, whatever mmcv was built with."""
    for name, operator in OWN.items():
        monkeypatch.setattr(EXTENSION, name, operator)


@pytest.fixture
def both(monkeypatch):
    """``both(call)``: the result with mmkd's operators, and a list of that with compiled ones.

    The list is empty without compiled operators; a test compares with plain loops as well.
    """

    def run(call):
        results = []
        for operators in filter(None, (OWN, COMPILED)):
            for name, operator in operators.items():
                monkeypatch.setattr(EXTENSION, name, operator)
            results.append(call())
        return results[0], results[1:]

    return run


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)
