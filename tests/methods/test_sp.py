"""SP: a worked number, and several layers."""

import pytest
from row_toys import A, B, on_two_layers, two_layers

from mmkd.methods.sp import SP, similarity_error


def test_worked_number():
    assert float(similarity_error(A, B)) == pytest.approx(0.1509732, abs=1e-6)


def test_layers_are_added():
    first, second = two_layers()
    a, b = similarity_error(*first), similarity_error(*second)
    assert on_two_layers(SP(['a', 'b']))['loss'] == pytest.approx(float(a + b), rel=1e-5)
