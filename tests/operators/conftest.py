"""mmcv's Python code on mmkd's operators, and on the compiled ones where there are any."""

import pytest
import torch

from mmkd.operators.extension import compiled_operators, own_operators, using

OWN, COMPILED = own_operators(), compiled_operators()


@pytest.fixture
def own():
    """mmkd's operators are those of mmcv, whatever mmcv was built with."""
    with using(OWN):
        yield


@pytest.fixture
def both():
    """``both(call)``: the result with mmkd's operators, and a list of that with compiled ones.

    The list is empty without compiled operators; a test compares with plain loops as well.
    """

    def run(call):
        results = []
        for operators in filter(None, (OWN, COMPILED)):
            with using(operators):
                results.append(call())
        return results[0], results[1:]

    return run


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)
