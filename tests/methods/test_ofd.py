"""OFD: the partial distance, margins, and connectors."""

import pytest
import torch
from map_toys import FS, FT, check_first_connector, on_maps
from torch import nn

from mmkd.methods.ofd import OFD, margin_of, measured_margin, partial_square
from mmkd.teacher import build_model
from mmkd.testing import make_trace, tiny_classifier


def test_worked_numbers():
    cut = FT.clamp(min=-0.5)
    assert float(partial_square(FS, cut).flatten(1).sum(1).mean()) == pytest.approx(11.03125)
    active = (cut < FS) | (cut > 0)
    assert float(active.double().mean()) == pytest.approx(0.75)
    leaf = FS.clone().requires_grad_()
    partial_square(leaf, cut).sum().backward()
    assert not leaf.grad[(cut <= 0) & (cut >= FS)].any() and leaf.grad.any()


def test_margins():
    mean, std = torch.tensor([0.0, 0.5, 5.0]), torch.tensor([1.0, 0.3, 1.0])
    wanted = torch.tensor([-0.797885, -0.124460, -3.0], dtype=torch.float64)
    torch.testing.assert_close(margin_of(mean, std), wanted, atol=1e-6, rtol=0)
    torch.manual_seed(0)
    drawn = torch.randn(400, 1, 30, 30) * 0.3 + 0.5
    assert float(measured_margin(drawn)) == pytest.approx(-0.1245, abs=2e-3)
    assert float(measured_margin(drawn.abs())) == 0


def test_takes_margins_from_the_batchnorms_or_from_the_first_batch():
    models = [build_model(tiny_classifier(width=w)) for w in (4, 8)]
    norms = [m for m in models[1].modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.constant_(norm.bias, 0.5)
        nn.init.constant_(norm.weight, -0.3)
    objective = OFD()
    objective.bind(*models)
    assert objective.known == 3
    assert float(objective.margin_0[0]) == pytest.approx(-0.124460, abs=1e-6)

    measured = OFD('a')
    on_maps(measured, [FS], [FT])
    torch.testing.assert_close(measured.margin_0, measured_margin(FT).float())
    before = measured.margin_0.clone()
    trace = make_trace({'a': FS}, {'a': 2 * FT})
    measured(trace)
    assert torch.equal(measured.margin_0, before), 'the first batch decides'
    with pytest.raises(ValueError, match="norms names 'backbone.nothing'.*no BatchNorm"):
        OFD(norms=['backbone.nothing']).bind(*models)


def test_the_connector_starts_as_the_authors_start_it():
    check_first_connector(OFD('a'))
