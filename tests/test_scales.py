"""A student on images of half the size, a teacher on the full ones."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.families import two_stage
from mmkd.functional.crops import crop_weights
from mmkd.methods.mimic import Mimic
from mmkd.scales import HalfScale, seen_by_teachers, teacher_scale
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, label_maps, tiny_faster_rcnn, tiny_retinanet

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
    assert teacher_scale(model) == 2 and teacher_scale(build_model(tiny_faster_rcnn(4))) == 1


def test_what_cannot_be_halved():
    inputs, samples = detection_batch(1, (64, 63))
    with pytest.raises(ValueError, match=r'cannot halve a batch of \(64, 63\) pixels'):
        HalfScale()(inputs, samples)
    inputs, samples = detection_batch(1)
    samples[0].gt_instances.masks = torch.zeros(2, 64, 96)
    with pytest.raises(ValueError, match='has masks or segmentation maps'):
        HalfScale()(inputs, samples)
    with pytest.raises(ValueError, match='has masks or segmentation maps'):
        HalfScale()(inputs, label_maps(torch.zeros(1, 64, 96).long()))


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
    with pytest.raises(ValueError, match="found proposal_source='teacher'"):
        distiller_of(proposal_source='teacher')
    with pytest.raises(ValueError, match="'cwd': CWD compares networks that see the same images"):
        Distiller(
            tiny_faster_rcnn(**HALVES),
            dict(cwd=dict(type='mmkd.CWD')),
            dict(config=tiny_faster_rcnn(), checkpoint='random'),
        )
    distiller = distiller_of()
    with pytest.raises(ValueError, match='the teacher saw 128 rows of pixels and the student 128'):
        distiller(**distiller.data_preprocessor(raw_batch(), False), mode='loss')
    assert 'twice the size' in str(distiller.plan)
    assert Mimic().scale == 1
