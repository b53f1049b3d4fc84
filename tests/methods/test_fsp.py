"""FSP: Gram matrices between two layers."""

import pytest
import torch
from map_toys import FS, FS2, FT, FT2, on_maps

from mmkd.methods.fsp import FSP, flow, flow_error
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier


def test_flow():
    gram = flow(FS, FS2)
    wanted = torch.tensor([[0.15625, 0.078125], [0.09375, -0.046875]], dtype=torch.float64)
    torch.testing.assert_close(gram[0], wanted)
    pair = gram, flow(FT, FT2)
    assert float(flow_error(*pair)) == pytest.approx(0.2044678, abs=1e-7)
    assert float(flow_error(*pair, 'frobenius')) == pytest.approx(0.8178711, abs=1e-7)
    torch.testing.assert_close(flow(3 * FS, 3 * FS2), 9 * gram)
    order = torch.randperm(4)
    mixed = [x.flatten(2)[..., order].view_as(x) for x in (FS, FS2)]
    torch.testing.assert_close(flow(*mixed), gram)
    large = FS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for pool in ('max', 'avg'):
        torch.testing.assert_close(flow(large, FS2, pool), gram)


def test_objective():
    found = on_maps(FSP(['a', 'b']), [FS, FS2], [FT, FT2])
    assert float(found['loss']) == pytest.approx(0.2044678, abs=1e-6)
    found = on_maps(FSP(['a', 'b'], reduction='frobenius'), [FS, FS2], [FT, FT2])
    assert float(found['loss']) == pytest.approx(0.8178711, abs=1e-6)
    wide = torch.cat((FT, FT), 1)
    assert float(on_maps(FSP(['a', 'b']), [FS, FS2], [wide, FT2])['loss'].detach()) > 0
    with pytest.raises(ValueError, match="'a' has 2 channels and teacher 'a' 4, but adapt=None"):
        on_maps(FSP(['a', 'b'], adapt=None), [FS, FS2], [wide, FT2])
    with pytest.raises(ValueError, match='two or more taps.*found 1 and 1'):
        on_maps(FSP('a'), [FS], [FT])


def test_begins_in_front_of_the_first_stage():
    objective = FSP()
    objective.bind(*(build_model(tiny_classifier(width)) for width in (4, 8)))
    wanted = ['backbone.relu', *(f'backbone.layer{k}' for k in (1, 2, 3))]
    assert [str(tap) for tap in objective.student_taps] == wanted
    assert [str(tap) for tap in objective.teacher_taps] == wanted
