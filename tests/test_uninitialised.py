"""Parameters that a constructor leaves as it found them have values."""

import pytest
import torch
from torch import nn

from mmkd.registry import MODELS
from mmkd.teacher import build_model
from mmkd.uninitialised import fill_nan, finite, uninitialised_as_nan


class Embedded(nn.Module):
    """As the heads of DETR in mmdet: whoever builds one is to call ``init_weights``."""

    def __init__(self):
        super().__init__()
        self.level_embed = nn.Parameter(torch.Tensor(4, 8))
        self.linear = nn.Linear(8, 8)


def test_they_are_small_and_the_same_each_time():
    torch.manual_seed(0)
    wanted = nn.Linear(8, 8).weight, torch.rand(3)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(finite(Embedded))
        assert torch.equal(models[-1].linear.weight, wanted[0])
        assert torch.equal(torch.rand(3), wanted[1])
    found = models[0].level_embed
    assert torch.equal(found, models[1].level_embed)
    assert 0.005 < found.std() < 0.05
    assert found.requires_grad


@pytest.mark.parametrize('deterministic', [True, False])
def test_settings_of_torch_are_what_they_were(deterministic):
    torch.use_deterministic_algorithms(deterministic, warn_only=deterministic)
    try:
        with uninitialised_as_nan():
            assert torch.empty(3).isnan().all()
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled() == deterministic
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_is_initialised_stays():
    linear = nn.Linear(3, 3)
    before = linear.weight.clone()
    linear.bias.data[1] = torch.nan
    kept = linear.bias[0].item()
    fill_nan(linear)
    assert torch.equal(linear.weight, before)
    assert linear.bias[0].item() == kept
    assert linear.bias.isfinite().all()


def test_every_model_that_mmkd_builds_is_finite():
    MODELS.register_module(name='EmbeddedForTest', module=Embedded, force=True)
    try:
        assert build_model(dict(type='mmkd.EmbeddedForTest')).level_embed.isfinite().all()
    finally:
        MODELS.module_dict.pop('EmbeddedForTest')


def test_parameters_without_memory_stay_so():
    with torch.device('meta'):
        found = finite(Embedded)
    assert found.linear.weight.is_meta and found.level_embed.isfinite().all()
