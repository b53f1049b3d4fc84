"""Predictions of two heads at equal priors."""

import pytest
import torch
from detection_toys import detector, halved_step, step

from mmkd.families.comparable import Misfit
from mmkd.methods.dense_kd import DenseKD
from mmkd.rows import predictions
from mmkd.rows.heads import Answer, answers, check_heads, has_classes, head_taps
from mmkd.teacher import build_model
from mmkd.testing import tiny_faster_rcnn, tiny_yolov3


def answer(name, levels, batch=1):
    model = detector(name).eval()
    sizes = [(-(-64 // s), -(-96 // s)) for s in (8, 16, 32, 64, 128)]
    sizes = sizes[: model.bbox_head.prior_generator.num_levels]
    feats = [torch.randn(batch, 8, *size) for size in sizes]
    with torch.no_grad():
        return Answer(model, [m for part in model.bbox_head(feats) for m in part], levels)


@pytest.mark.parametrize('name', ['retinanet', 'gfl', 'yolox'])
def test_chosen_levels(name):
    count = 3 if name == 'yolox' else 5
    whole = answer(name, list(range(count)))
    some = Answer(whole.model, whole.outputs, [2, 0])
    each = 9 if name == 'retinanet' else 1
    assert whole.counts[:3] == [96 * each, 24 * each, 6 * each]
    assert some.counts == [whole.counts[2], whole.counts[0]]
    for own, all_of in ((some.logits, whole.logits), (some.boxes(), whole.boxes())):
        parts = all_of.split(whole.counts, 1)
        assert torch.equal(own, torch.cat((parts[2], parts[0]), 1))
    if name == 'gfl':
        assert whole.bins().shape == (1, sum(whole.counts), 4, 17)
        assert torch.equal(some.bins()[:, 6:], whole.bins()[:, :96])


def test_who_has_classes():
    assert has_classes(detector('yolox')) and has_classes(detector('paa'))
    assert not has_classes(build_model(tiny_yolov3(4)))
    assert not has_classes(build_model(tiny_faster_rcnn(4))), 'an RPN has none'


def test_levels_of_two_heads():
    gfl, rtmdet = detector('gfl'), detector('rtmdet')
    assert check_heads('DenseKD', gfl, rtmdet, True) == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(Misfit, match='class counts: .* 3 and .* 4'):
        check_heads('DenseKD', gfl, detector('gfl', num_classes=4))


def test_words_for_two_stage_detectors():
    frcnn = detector('frcnn')
    with pytest.raises(Misfit, match='softmax classes of RoIs are for KD and DKD'):
        check_heads('DenseKD', frcnn, frcnn)
    with pytest.raises(Misfit, match='teacher RetinaNet with RetinaHead.$'):
        check_heads('DenseKD', frcnn, detector('retinanet'))


def test_taps():
    student, teacher = detector('paa'), detector('gfl')
    own, others = head_taps(student, teacher, assigned=True)
    assert [str(tap) for tap in own] == [
        'bbox_head.forward()',
        'bbox_head.get_targets()',
        'bbox_head.paa_reassign()',
    ]
    assert [str(tap) for tap in others] == ['neck']
    assert len(head_taps(student, teacher, assigned=False)[0]) == 1


@pytest.mark.parametrize('name', ['retinanet', 'gfl', 'tood', 'yolox', 'rtmdet'])
def test_over_scales_equal_codes_are_equal_boxes(name, monkeypatch):
    """Of a level and the next coarser one of a teacher on images of twice the side."""
    objective = DenseKD(boxes='confidence')
    losses, trace = halved_step(objective, detector(name), detector(name, 1))
    assert all(x.isfinite() for x in losses.values() if torch.is_tensor(x))
    own, wanted = predictions.both_outputs(trace)
    levels = len(objective.pairs) + 1
    assert objective.pairs == [(i, i + 1) for i in range(levels - 1)]
    assert all(own[i].shape == wanted[i + 1].shape for i in range(levels - 1))
    parts = [own[k : k + levels] for k in range(0, len(own), levels)]
    distances = 2 if name == 'rtmdet' else 1  # which are pixels
    parts[1] = [distances * m for m in parts[1]]
    moved = [m.detach() for part in parts for m in (part[0], *part[:-1])]
    monkeypatch.setattr(predictions, 'both_outputs', lambda _trace: (own, moved))
    student, teacher = answers(trace, objective.pairs)
    torch.testing.assert_close(student.boxes(), teacher.boxes())
    found = {key: value.detach() for key, value in objective(trace).items()}
    assert float(found['loss_classes']) == 0 and float(found['loss_boxes']) < 1e-4


def test_maps_of_one_stride_and_unequal_size():
    _, trace = step(DenseKD(), detector('gfl'), detector('gfl', 1))
    own, wanted = answers(trace, [(i, i) for i in range(5)])
    assert own.sizes == wanted.sizes and own.logits.requires_grad
    assert not wanted.logits.requires_grad
    (first, *rest) = trace.teacher.calls['neck'][0]
    trace.teacher.calls['neck'] = [(first[:, :, :-1], *rest)]
    with pytest.raises(ValueError, match=r'maps of \(12, 16\) and \(11, 16\) cells for one stride'):
        answers(trace, [(i, i) for i in range(3)])
