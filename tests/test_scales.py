"""A student on images of another size, a teacher on the full ones."""

import copy
from fractions import Fraction

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.families import two_stage
from mmkd.functional.crops import crop_weights
from mmkd.scales import (
    HalfScale,
    Rescale,
    divisor_for,
    full_size,
    in_own_pixels,
    in_teachers_pixels,
    scale_of,
    seen_by_teachers,
)
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    label_maps,
    make_trace,
    segmentation_batch,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)

HALVES = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.HalfScale')]))
SIZE = (120, 152)  # not a multiple of 32 before padding, 128 x 160 after


def distiller_of(make=tiny_faster_rcnn, teacher=None, **options):
    torch.manual_seed(0)
    return Distiller(
        make(**HALVES),
        dict(mimic=dict(type='mmkd.Mimic', **options)),
        dict(config=make(width=16, **(teacher or {})), checkpoint='random'),
    ).train()


def raw_batch():
    """Images and samples as a data loader gives them."""
    inputs, samples = detection_batch(2, SIZE)
    images = [(80 + 60 * image).clamp(0, 255).byte() for image in inputs]
    images[1] = images[1][:, :100]
    samples[1].set_metainfo(dict(img_shape=(100, SIZE[1])))
    return dict(inputs=images, data_samples=samples)


def recorded(distiller, data):
    """The trace that the objective of a step saw."""
    seen = []
    hook = distiller.objectives['mimic'].register_forward_pre_hook(lambda _m, a: seen.append(a[0]))
    losses = distiller(**data, mode='loss')
    hook.remove()
    return losses, seen[0]


# -------------------------------------------------------------------------------- the batch


def test_images_boxes_and_sizes_are_halved():
    plain, halving = (build_model(tiny_faster_rcnn(4, **k)).data_preprocessor for k in ({}, HALVES))
    full = plain(copy.deepcopy(raw_batch()), True)
    small = halving(copy.deepcopy(raw_batch()), True)
    assert small['inputs'].shape == (2, 3, 64, 80) and full['inputs'].shape == (2, 3, 128, 160)
    blocks = full['inputs'].unflatten(3, (80, 2)).unflatten(2, (64, 2))
    torch.testing.assert_close(small['inputs'], blocks.mean((3, 5)))
    for one, whole in zip(small['data_samples'], full['data_samples'], strict=True):
        assert torch.equal(2 * one.gt_instances.bboxes, whole.gt_instances.bboxes)
        assert torch.equal(one.gt_instances.labels, whole.gt_instances.labels)
        assert len(one.ignored_instances.bboxes) == 0
        assert one.batch_input_shape == (64, 80) and one.scale_factor == (0.5, 0.5)
    assert [s.img_shape for s in small['data_samples']] == [(60, 76), (50, 76)]

    inputs, samples = seen_by_teachers(
        **{'inputs': small['inputs'], 'samples': small['data_samples']}
    )
    assert torch.equal(inputs, full['inputs'])
    for one, whole in zip(samples, full['data_samples'], strict=True):
        assert torch.equal(one.gt_instances.bboxes, whole.gt_instances.bboxes)
        assert one.img_shape == whole.img_shape and one.batch_input_shape == (128, 160)
    assert seen_by_teachers(full['inputs'], full['data_samples'])[0] is full['inputs']


def test_only_training_is_halved():
    model = build_model(tiny_faster_rcnn(4, **HALVES)).eval()
    data = raw_batch()
    assert model.data_preprocessor(copy.deepcopy(data), False)['inputs'].shape[2:] == (128, 160)
    assert all(len(result.pred_instances) for result in model.test_step(data))
    assert scale_of(model) == Fraction(1, 2)
    assert scale_of(build_model(tiny_faster_rcnn(4))) == 1


def test_what_cannot_be_halved():
    inputs, samples = detection_batch(1, (64, 63))
    with pytest.raises(ValueError, match=r'cannot bring a batch of \(64, 63\) pixels to 1/2'):
        HalfScale()(inputs, samples)
    with pytest.raises(ValueError, match=r'\(64, 63\) pixels to 2/3 .* pad_size_divisor=96'):
        Rescale(2 / 3)(inputs, samples)
    inputs, samples = detection_batch(1, (60, 96))
    samples[0].gt_instances.masks = bitmaps(60, 96)
    with pytest.raises(ValueError, match='instance masks, which are scaled to 1/2 only, found 2/3'):
        Rescale(2 / 3)(inputs, samples)


@pytest.mark.parametrize(
    ('scale', 'message'),
    [
        (0.123, 'a denominator of at most 16'),
        (0, 'scale must be a finite number above 0'),
        (True, 'scale must be'),
        ('half', 'scale must be'),
    ],
)
def test_scales_that_are_no_fractions(scale, message):
    with pytest.raises(ValueError, match=message):
        Rescale(scale)


def test_one_rescale_at_most():
    both = dict(batch_augments=[dict(type='mmkd.HalfScale'), dict(type='mmkd.Rescale', scale=0.5)])
    with pytest.raises(ValueError, match='2 entries of Rescale or HalfScale'):
        scale_of(build_model(tiny_faster_rcnn(4, data_preprocessor=both)))


def bitmaps(h, w):
    from mmdet.structures.mask import BitmapMasks

    masks = torch.zeros(2, h, w, dtype=torch.uint8)
    masks[0, :, : w // 2], masks[1, h // 2 :] = 1, 1
    return BitmapMasks(masks.numpy(), h, w)


def test_masks_and_label_maps_keep_their_places():
    inputs, samples = detection_batch(1, (64, 96))
    samples[0].gt_instances.masks = bitmaps(64, 96)
    small = HalfScale()(inputs, samples)[1][0].gt_instances.masks
    assert small.masks.shape == (2, 32, 48)
    assert small.masks[0, :, :24].all() and not small.masks[0, :, 24:].any()
    assert small.masks[1, 16:].all() and not small.masks[1, :16].any()
    labels = torch.arange(6)[None, None].expand(1, 6, 6).clone()
    found = Rescale(1 / 3)(torch.zeros(1, 3, 6, 6), label_maps(labels))[1][0].gt_sem_seg.data
    assert found.tolist() == [[[1, 4], [1, 4]]]  # the pixel in the middle of each block
    found = Rescale(2 / 3)(torch.zeros(1, 3, 6, 6), label_maps(labels))[1][0].gt_sem_seg.data
    assert found.shape == (1, 4, 4) and found.dtype == labels.dtype


def test_boxes_at_two_thirds():
    """OS-2: x_s = r x_t, and back."""
    inputs, samples = detection_batch(1, (90, 96))
    samples[0].gt_instances.bboxes = torch.tensor([[15.0, 30, 75, 90]] * 2)
    small, scaled = Rescale(2 / 3)(inputs, samples)
    assert small.shape == (1, 3, 60, 64) and scaled[0].img_shape == (60, 64)
    assert scaled[0].gt_instances.bboxes[0].tolist() == [10, 20, 50, 60]
    trace = make_trace({'neck': torch.zeros(1, 1, 15, 16)}, inputs=small)
    trace.scale = Fraction(2, 3)
    own = torch.tensor([[0.0, 10, 20, 50, 60]])
    assert in_teachers_pixels(own, trace).tolist() == [[0, 15, 30, 75, 90]]
    assert torch.equal(in_own_pixels(in_teachers_pixels(own, trace), trace), own)
    assert full_size(trace) == (90, 96)
    flat = Rescale(2 / 3)(torch.full((1, 3, 90, 96), 5.0), samples)[0]
    torch.testing.assert_close(flat, torch.full((1, 3, 60, 64), 5.0))


def test_scale_one_changes_nothing():
    inputs, samples = detection_batch(1)
    found = Rescale(1)(inputs, samples)
    assert found[0] is inputs and found[1] is samples
    assert scale_of(build_model(tiny_faster_rcnn(4))) == 1


def test_larger_images_for_the_student_are_warned_of(log):
    inputs, samples = detection_batch(1)
    assert Rescale(2)(inputs, samples)[0].shape == (1, 3, 128, 192)
    assert 'the student sees larger images than its teachers' in log.text


def test_padding_for_two_grids():
    assert divisor_for(8, 8, Fraction(1, 2)) == 16
    assert divisor_for(32, 32, Fraction(2, 3)) == 96
    assert divisor_for(8, 16, Fraction(2, 3)) == 48
    assert divisor_for(4, 8, Fraction(1, 2)) == 8


def test_segmentors_and_classifiers():
    """mmseg leaves batch_augments unbuilt; a Distiller builds them."""
    augments = dict(batch_augments=[dict(type='mmkd.Rescale', scale=0.5)])
    seg = dict(student=tiny_pspnet(4, data_preprocessor=augments), task_weight=1.0)
    teacher = dict(config=tiny_pspnet(8), checkpoint='random')
    objective = dict(type='mmkd.CWD', resize='student')
    distiller = Distiller(**seg, teacher=teacher, objectives=dict(cwd=objective)).train()
    inputs, samples = segmentation_batch()
    raw = dict(inputs=list(inputs), data_samples=samples)
    data = distiller.data_preprocessor(raw, True)
    assert data['inputs'].shape == (2, 3, 32, 48)
    assert data['data_samples'][0].gt_sem_seg.data.shape == (1, 32, 48)
    assert distiller(**data, mode='loss')['kd.cwd.loss'] > 0
    model = build_model(tiny_classifier(data_preprocessor=augments))
    raw = dict(inputs=[torch.zeros(3, 32, 32)] * 2, data_samples=class_samples())
    assert model.data_preprocessor(raw, True)['inputs'].shape == (2, 3, 16, 16)
    assert model.data_preprocessor(raw, False)['inputs'].shape == (2, 3, 32, 32)
    assert not list(build_model(tiny_classifier()).data_preprocessor.batch_augments)


def class_samples():
    from mmkd.testing import class_labels

    return class_labels(torch.tensor([0, 1]))


# ------------------------------------------------------------------------------ the objective


@pytest.mark.parametrize('make', [tiny_faster_rcnn, tiny_retinanet])
def test_two_iterations(make):
    """Through the whole of train_step; the loss is a sum over full-scale crops, one by one."""
    distiller = distiller_of(make)
    optim_wrapper = build_optim_wrapper(distiller, dict(optimizer=dict(type='SGD', lr=0.01)))
    adapters = distiller.objectives['mimic'].adapters
    before = copy.deepcopy(adapters.state_dict())
    for _ in range(2):
        logs = distiller.train_step(copy.deepcopy(raw_batch()), optim_wrapper)
        assert float(logs['kd.mimic.loss'].detach()) > 0 and float(logs['kd.mimic.regions']) > 0
    changed = [k for k, v in adapters.state_dict().items() if not torch.equal(v, before[k])]
    assert any('weight' in key for key in changed)


@pytest.mark.parametrize('mode', ['crop', 'roialign'])
def test_regions_lie_over_the_same_pixels(mode):
    distiller = distiller_of(mode=mode)
    data = distiller.data_preprocessor(raw_batch(), True)
    losses, trace = recorded(distiller, data)
    assert trace.inputs.shape[2:] == (64, 80) and trace.teacher.inputs.shape[2:] == (128, 160)
    objective = distiller.objectives['mimic']
    own = trace.student[two_stage.rois_tap(distiller.student)][0]
    rois = objective.rois(trace)
    assert torch.equal(rois[:, 1:], 2 * own[:, 1:]) and torch.equal(rois[:, 0], own[:, 0])
    pairs = objective.tensor_pairs(trace)
    for k, (student, teacher) in enumerate(pairs):
        stride = 4 * 2**k
        assert student.shape == teacher.shape == (2, 32, 128 // stride, 160 // stride)
        up = objective.adapters[f'{k}']
        wanted = F.conv_transpose2d(trace.student['neck'][k], up.weight, up.bias, 2, 1)
        torch.testing.assert_close(student, wanted[..., : 160 // stride])  # 80 / 32 is no integer
        assert torch.equal(teacher, trace.teacher['neck'][k])
    loss = losses['kd.mimic.loss']
    loss.backward()
    assert any(a.weight.grad.any() for a in objective.adapters.values())
    if mode == 'crop':
        torch.testing.assert_close(loss, one_by_one(rois, pairs))
    some, *views = objective.views(trace)
    assert [view.stride for view in views] == [2, 4, 8, 16]  # in pixels of the student
    assert float(some.boxes[:, 3:].max()) <= 80


def one_by_one(rois, pairs):
    total = 0.0
    for roi in rois:
        n, x1, y1, x2, y2 = roi.tolist()
        side = ((x2 - x1) * (y2 - y1)) ** 0.5
        level = sum(side / 14 + 1e-5 >= stride for stride in (8, 16, 32))
        s, t = pairs[level]
        weight = crop_weights(
            roi[None] * torch.tensor([0.0, 1, 1, 1, 1]), s.shape[2:], 4 * 2**level, 1
        )
        cells = weight[0] > 0
        u, v = (x[int(n)][:, cells] for x in (t, s))
        total = total + (u - v).square().mean()
    return total / (2 * len(rois))


def test_ground_truth_regions_are_those_of_the_full_image():
    distiller = distiller_of(proposal_source='gt')
    full = torch.cat([s.gt_instances.bboxes for s in raw_batch()['data_samples']])
    _, trace = recorded(distiller, distiller.data_preprocessor(raw_batch(), True))
    torch.testing.assert_close(distiller.objectives['mimic'].rois(trace)[:, 1:], full)


def test_a_teacher_that_pads_further_sees_the_same_place():
    distiller = distiller_of(teacher=dict(data_preprocessor=dict(pad_size_divisor=192)))
    data = distiller.data_preprocessor(raw_batch(), True)
    losses, trace = recorded(distiller, data)
    assert trace.teacher.inputs.shape[2:] == (192, 192)
    pair = distiller.objectives['mimic'].tensor_pairs(trace)[0]
    assert pair[1].shape == (2, 32, 32, 40) and losses['kd.mimic.loss'].isfinite()


def test_refused():
    distiller = distiller_of()
    with pytest.raises(ValueError, match='this batch is unscaled: batches must come out of'):
        distiller(**distiller.data_preprocessor(raw_batch(), False), mode='loss')
    assert 'twice the size' in str(distiller.plan)
    with pytest.raises(ValueError, match='upsample=True enlarges .* found 2/3. Set upsample=False'):
        scaled(2 / 3, upsample=True)


def scaled(scale, make=tiny_faster_rcnn, **options):
    augments = [dict(type='mmkd.Rescale', scale=scale)]
    return Distiller(
        make(data_preprocessor=dict(batch_augments=augments, pad_size_divisor=96)),
        dict(mimic=dict(type='mmkd.Mimic', **options)),
        dict(config=make(width=16), checkpoint='random'),
    ).train()


def test_four_times_the_size():
    distiller = scaled(0.25)
    data = distiller.data_preprocessor(raw_batch(), True)
    assert data['inputs'].shape[2:] == (48, 48)
    losses, trace = recorded(distiller, data)
    assert losses['kd.mimic.loss'] > 0
    objective = distiller.objectives['mimic']
    assert objective.tensor_pairs(trace)[0][0].shape[2:] == (48, 48)  # of 192 at stride 4
    assert '8x8 transposed conv' in str(distiller.plan) and '4 times the size' in str(
        distiller.plan
    )


def test_on_the_students_grid():
    """Level shift: the regions are the student's, and the adapter an ordinary one."""
    distiller = scaled(0.5, upsample=False, level_map='common')
    objective = distiller.objectives['mimic']
    assert objective.pairs == [(0, 1), (1, 2), (2, 3)]
    losses, trace = recorded(distiller, distiller.data_preprocessor(raw_batch(), True))
    assert losses['kd.mimic.loss'] > 0 and trace.inputs.shape[2:] == (96, 96)
    own = trace.student[two_stage.rois_tap(distiller.student)][0]
    assert torch.equal(objective.rois(trace), own)
    assert [s.shape[2] for s, _ in objective.tensor_pairs(trace)] == [24, 12, 6]


@pytest.mark.parametrize('scale', [2 / 3, 0.75])
def test_other_scales_are_resized(scale):
    distiller = scaled(scale, tiny_retinanet, resize='student', student='neck[0:2]')
    data = distiller.data_preprocessor(raw_batch(), True)
    losses, trace = recorded(distiller, data)
    assert losses['kd.mimic.loss'] > 0
    (first, _), _ = distiller.objectives['mimic'].tensor_pairs(trace)
    assert (
        first.shape[2:] == trace.student['neck'][0].shape[2:] != trace.teacher['neck'][0].shape[2:]
    )


def test_proposals_of_the_teacher_lie_in_the_students_image():
    distiller = distiller_of(proposal_source='teacher')
    losses, trace = recorded(distiller, distiller.data_preprocessor(raw_batch(), True))
    assert losses['kd.mimic.loss'] > 0
    rois = distiller.objectives['mimic'].regions.of(trace)
    assert 40 < float(rois[:, 1:].max()) <= 76  # half of 152
