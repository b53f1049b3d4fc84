"""MaskKD against the numbers of its definition, and against mmdet's own mask heads on given RoIs."""

import copy
import math

import pytest
import torch
from mask_toys import masked, step, terms
from torch.nn import functional as F

from mmkd.families import mask_heads
from mmkd.methods.mask_kd import MaskKD, agreement, boundary_weights, mask_kl
from mmkd.testing import mask_batch

U = torch.tensor([[[0.0, 1], [-1, 2]]], dtype=torch.float64)
V = torch.tensor([[[2.0, 1], [-2, 0]]], dtype=torch.float64)
EVEN = torch.ones(1, 2, 2, dtype=torch.float64)


def near(value):
    return pytest.approx(value, rel=2e-6, abs=1e-7)


def test_kl_of_masks():  # MSK-1
    cells = [
        float(mask_kl(U[:, i : i + 1, j : j + 1], V[:, i : i + 1, j : j + 1], EVEN[:, :1, :1], 1.0))
        for i in range(2)
        for j in range(2)
    ]
    assert cells == near([0.3278133, 0, 0.0671308, 0.4337808])
    assert float(mask_kl(U, V, EVEN, 1.0)) == near(0.2071812)
    assert float(mask_kl(U, V, EVEN, 2.0)) == near(0.2574032)


def test_boundary_weights():  # MSK-2
    mask = torch.tensor([1.0, 1, 0, 0]).expand(1, 4, 4)
    weight = boundary_weights(mask, 4.0)
    assert weight[0, 0].tolist() == near([0.4, 1.6, 1.6, 0.4])
    losses = torch.tensor([1.0, 5, 2, 0]).expand(4, 4)
    assert float((weight * losses).mean()) == near(2.9)
    assert float((boundary_weights(mask, 1.0) * losses).mean()) == near(2.0)
    assert boundary_weights(torch.rand(3, 5, 5).round(), 7.0, 5).mean((1, 2)).tolist() == near(
        [1.0] * 3
    )


def test_channel_of_the_label():  # MSK-3
    z_s, z_t = (
        torch.tensor(z, dtype=torch.float64)[..., None, None]
        for z in ([[0.0, 1], [3, -1]], [[1.0, 1], [0, 1]])
    )
    labels, even = torch.tensor([0, 1]), torch.ones(2, 1, 1, dtype=torch.float64)
    found = mask_kl(*(mask_heads.of_class(z, labels) for z in (z_s, z_t)), even, 1.0)
    assert found.tolist() == near([0.1109441, 0.4621172])
    assert float(found.mean()) == near(0.2865306)
    assert float(mask_kl(z_s, z_t, even, 1.0).mean()) == near(0.3571253)


def test_agreement_with_the_label():  # MSK-4
    mask = torch.tensor([[[1.0, 1], [1, 0]]])
    assert agreement(V, mask).tolist() == near([0.6666667])
    assert agreement(-torch.ones(1, 2, 2), 0 * mask).tolist() == [0]


def by_hand(trace, stage=0, **options):
    """Both terms in float64, by mmdet's own functions, one object after the other."""
    tau, boundary, size = options.get('tau', 1), options.get('boundary', 4), options.get('size', 3)
    student, teacher = trace.student.model, trace.teacher.model
    path = 'roi_head.mask_head' + f'.{stage}' * (mask_heads.stages(student) > 1)
    own, targets = (trace.student[f'{path}{end}'][0] for end in ('', '.get_targets()'))
    features = trace.student[f'{path}.convs.0'][0].double()
    (results,) = trace.student.raw(f'{path}.get_targets()@in[sampling_results]')
    labels = torch.cat([r.pos_gt_labels for r in results])
    boxes = [r.pos_priors for r in results]
    rois = torch.cat(
        [torch.cat((box.new_full((len(box), 1), i), box), 1) for i, box in enumerate(boxes)]
    )
    judged, seen = [], []
    heads = teacher.roi_head.mask_head
    for number, head in enumerate(heads if isinstance(heads, torch.nn.ModuleList) else [heads]):
        several = (number,) * (mask_heads.stages(teacher) > 1)
        hook = head.convs[-1].register_forward_hook(lambda _m, _i, out: seen.append(out))
        with torch.no_grad():
            found = teacher.roi_head._mask_forward(*several, trace.teacher['neck'], rois)
        hook.remove()
        judged.append(found['mask_preds'].double().sigmoid())
    wanted = torch.logit(sum(judged) / len(judged))
    far = seen[min(stage, len(seen) - 1)].double()
    logits = distance = 0
    for r, label in enumerate(labels.tolist()):
        m = targets[r].double()
        r_kl = []
        for k in range(own.shape[1]) if options.get('channels') == 'all' else [label]:
            u, v = own[r, k].double() / tau, wanted[r, k] / tau
            q, p = v.sigmoid(), u.sigmoid()
            kl = q * (q.log() - p.log()) + (1 - q) * ((1 - q).log() - (1 - p).log())
            weight = torch.ones_like(m)
            for i in range(m.shape[0]):
                for j in range(m.shape[1]):
                    window = m[
                        max(i - size // 2, 0) : i + size // 2 + 1,
                        max(j - size // 2, 0) : j + size // 2 + 1,
                    ]
                    weight[i, j] = boundary if window.max() > window.min() else 1
            r_kl.append(tau**2 * (weight / weight.mean() * kl).mean())
        gate = 1.0
        if options.get('gate') == 'iou':
            shape = wanted[r, label].sigmoid() > 0.5
            gate = (shape & (m > 0.5)).sum() / (shape | (m > 0.5)).sum().clamp(min=1)
        logits = logits + gate * sum(r_kl) / len(r_kl) / len(labels)
        distance = distance + gate * F.mse_loss(features[r], far[r]) / len(labels)
    return dict(loss_logits=logits, loss_features=0.5 * distance)


CASES = [
    ('mask', 'mask', {}),
    ('mask', 'mask', dict(tau=2.5, boundary=1.0)),
    ('mask', 'mask', dict(gate='iou', boundary=9.0, boundary_size=5)),
    ('mask', 'mask', dict(channels='all')),
    ('mask', 'cascade', {}),
    ('cascade', 'mask', {}),
    ('cascade', 'cascade', {}),
]


@pytest.mark.parametrize(('student', 'teacher', 'options'), CASES)
def test_equation(student, teacher, options):
    losses, trace = step(MaskKD(**options), masked(student), masked(teacher, 1))
    own = dict(options, size=options.get('boundary_size', 3))
    found, wanted = terms(losses), by_hand(trace, **own)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert float(value.detach()) > 1e-3
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7)


def test_all_stages_of_a_cascade_count_equally():
    losses, trace = step(MaskKD(stages='all'), masked('cascade'), masked('cascade', 1))
    each = [by_hand(trace, stage) for stage in range(2)]
    for name, value in terms(losses).items():
        wanted = sum(one[name] for one in each) / 2
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-7)
    assert float(each[0]['loss_logits']) != float(each[1]['loss_logits'])


def test_a_stage_that_did_not_run_counts_nothing():
    """A cascade stops where a stage refines no box."""
    objective = MaskKD(stages='all')
    _, trace = step(objective, masked('cascade'), masked('cascade', 1, width=8))
    whole = objective(trace)
    for tap in [tap for tap in trace.student.calls if '.1' in tap]:
        del trace.student.calls[tap]
    first = objective(trace)
    alone = objective.stage_terms(trace, 0)
    for name, value in first.items():
        torch.testing.assert_close(value, alone[name] / 2)
        assert float(value.detach()) < float(whole[name].detach())
    sum(first.values()).backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_factors_and_the_adapter():
    """Another width of features needs an adapter, a factor of 0 none and no features."""
    student, teacher = masked(), masked('mask', 1, width=8)
    objective = MaskKD(factors=dict(logits=2.0, features=3.0))
    losses, _ = step(objective, student, teacher)
    assert [p.shape for p in objective.parameters()] == [(16, 8, 1, 1), (16,)]
    assert objective.describe()[-1] == 'features 0: 1x1 conv 8 -> 16'
    once, _ = step(MaskKD(factors=dict(features=0)), student, teacher)
    assert set(terms(once)) == {'loss_logits'}
    twice = terms(losses)['loss_logits']
    torch.testing.assert_close(twice, 2 * terms(once)['loss_logits'])


def test_class_of_the_teacher():
    """Masks of the class that the teacher's box head gives each RoI."""
    student, teacher = masked(), masked('mask', 1)
    losses, trace = step(MaskKD(channels='teacher'), student, teacher)
    own = mask_heads.masks(trace)
    with torch.no_grad():
        scores = teacher.roi_head._bbox_forward(trace.teacher['neck'], own.rois)['cls_score']
        wanted = teacher.roi_head._mask_forward(trace.teacher['neck'], own.rois)['mask_preds']
    best = scores[:, :3].argmax(1)
    assert (best != own.labels).any()
    pair = [mask_heads.of_class(x, best) for x in (own.logits, wanted)]
    kl = mask_kl(*pair, boundary_weights(own.target, 4.0), 1.0).mean()
    torch.testing.assert_close(terms(losses)['loss_logits'], kl)


@pytest.mark.parametrize('options', [{}, dict(boundary=20.0, tau=3.0, gate='iou')])
def test_nothing_to_learn_from_itself(options):
    student = masked().eval()
    losses, _ = step(MaskKD(**options), student, copy.deepcopy(student))
    assert sum(float(x.detach()) for x in terms(losses).values()) == pytest.approx(0, abs=1e-9)


def test_gradient_in_the_channel_of_the_label_alone():
    objective = MaskKD(factors=dict(features=0))
    _, trace = step(objective, masked(), masked('mask', 1))
    (logits,) = trace.student.calls['roi_head.mask_head'][0]
    logits = logits.detach().requires_grad_()
    trace.student.calls['roi_head.mask_head'] = [[logits]]
    objective(trace)['loss_logits'].backward()
    labels = mask_heads.masks(trace).labels
    felt = logits.grad.abs().sum((2, 3))
    assert (felt > 0).float().argmax(1).equal(labels) and (felt > 0).sum() == len(labels)


def test_the_order_of_objects_does_not_matter():
    u, v, mask = torch.randn(3, 5, 4, 4)
    weight = boundary_weights((mask > 0).float(), 4.0)
    order = torch.randperm(5)
    kl = mask_kl(u, v, weight, 1.0)
    torch.testing.assert_close(kl[order], mask_kl(u[order], v[order], weight[order], 1.0))


@pytest.mark.parametrize('kind', ['mask', 'cascade'])
def test_a_batch_without_objects(kind):
    objective = MaskKD(stages='all')
    losses, _ = step(objective, masked(kind), masked(kind, 1, width=8), mask_batch(objects=0))
    found = terms(losses)
    assert [float(x.detach()) for x in found.values()] == [0, 0]
    sum(found.values()).backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_one_image_of_two_without_objects():
    inputs, samples = mask_batch()
    samples[0].gt_instances = samples[0].gt_instances[:0]
    losses, trace = step(MaskKD(), masked(), masked('mask', 1), (inputs, samples))
    assert set(mask_heads.masks(trace).rois[:, 0].tolist()) == {1.0}
    torch.testing.assert_close(
        terms(losses)['loss_logits'].double(), by_hand(trace)['loss_logits'], rtol=1e-5, atol=1e-7
    )


def test_masks_of_another_size_are_resized_and_that_is_said_once(log):
    large = dict(roi_head=dict(mask_roi_extractor=dict(roi_layer=dict(output_size=7))))
    teacher = masked('mask', 1, **large)
    objective = MaskKD(factors=dict(features=0))
    losses, trace = step(objective, masked(), teacher)
    own = mask_heads.masks(trace)
    with torch.no_grad():
        wanted = teacher.roi_head._mask_forward(trace.teacher['neck'], own.rois)['mask_preds']
    assert wanted.shape[2:] == (14, 14)
    wanted = F.interpolate(wanted, (8, 8), mode='bilinear', align_corners=False)
    pair = [mask_heads.of_class(x, own.labels) for x in (own.logits, wanted)]
    kl = mask_kl(*pair, boundary_weights(own.target, 4.0), 1.0).mean()
    torch.testing.assert_close(terms(losses)['loss_logits'], kl)
    objective(trace)
    said = [r.message for r in log.records if 'MaskKD: masks are' in r.message]
    assert said == ["MaskKD: masks are 14 x 14 and 8 x 8; the teacher's are resized"]


def test_one_extractor_for_boxes_and_masks():
    """Without one of its own, the mask branch takes the features that the box head had."""
    shared = dict(roi_head=dict(mask_roi_extractor=None))
    size = dict(train_cfg=dict(rcnn=dict(mask_size=10)))
    student, teacher = (masked('mask', seed, **shared, **size) for seed in (0, 1))
    assert student.roi_head.share_roi_extractor
    losses, trace = step(MaskKD(), student, teacher)
    for name, value in by_hand(trace).items():
        torch.testing.assert_close(terms(losses)[name].double(), value, rtol=1e-5, atol=1e-7)


def test_class_agnostic_masks():
    alike = dict(roi_head=dict(mask_head=dict(class_agnostic=True)))
    objective = MaskKD()
    losses, trace = step(objective, masked(**alike), masked('mask', 1, **alike))
    assert trace.student['roi_head.mask_head'][0].shape[1] == 1
    assert float(terms(losses)['loss_logits'].detach()) > 0 and not objective.compares_classes


def test_weight_zero_is_plain_training():
    inputs, samples = mask_batch()
    plain, student = masked(), masked()
    torch.manual_seed(0)
    wanted = plain.loss(inputs, copy.deepcopy(samples))
    torch.manual_seed(0)
    losses, _ = step(MaskKD(weight=0), student, masked('mask', 1), (inputs, samples))
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        found = losses[name] if isinstance(losses[name], list) else [losses[name]]
        assert all(torch.equal(a, b) for a, b in zip(found, values, strict=True)), name


def test_pictures_show_how_well_both_masks_fit():
    objective = MaskKD()
    _, trace = step(objective, masked(), masked('mask', 1))
    own = mask_heads.masks(trace)
    with torch.no_grad():
        student, teacher = objective.views(trace)
    assert torch.equal(student.boxes, teacher.boxes)
    place = (student.boxes[0] == own.rois).all(1).int().argmax()
    mine = mask_heads.of_class(own.logits, own.labels)
    assert float(student.scores[0]) == near(float(agreement(mine, own.target)[place]))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: MaskKD(boundary=0.5), 'boundary must be a finite number of at least 1'),
        (lambda: MaskKD(boundary=math.nan), 'boundary must be a finite'),
        (lambda: MaskKD(boundary_size=4), 'boundary_size must be odd'),
        (lambda: MaskKD(boundary_size=0), 'boundary_size must be a whole number of at least 1'),
        (lambda: MaskKD(tau=0), 'temperature tau must be a finite number above 0'),
        (lambda: MaskKD(gate='on'), 'gate must be one of'),
        (lambda: MaskKD(channels='none'), 'channels must be one of'),
        (lambda: MaskKD(stages='last'), 'stages must be one of'),
        (lambda: MaskKD(factors=dict(logits=0, features=0)), 'all terms .* are 0'),
        (lambda: MaskKD(student='neck').bind(masked(), masked()), 'it takes no taps'),
        (
            lambda: MaskKD().bind(masked(), masked(num_classes=4)),
            'equal mask classes: .* 3 .* 4',
        ),
        (
            lambda: MaskKD().bind(
                masked(), masked(roi_head=dict(mask_head=dict(class_agnostic=True)))
            ),
            'class_agnostic masks: .* False .* True',
        ),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('loads', [False, True])
def test_a_pipeline_without_masks_is_refused_before_training(loads):
    from mmdet.datasets.transforms import LoadAnnotations

    dataset = type('Data', (), {})()
    dataset.pipeline = type('Steps', (), {})()
    dataset.pipeline.transforms = [LoadAnnotations(with_bbox=True, with_mask=loads)]
    if loads:
        return MaskKD().check_dataset(dataset)
    with pytest.raises(ValueError, match=r'LoadAnnotations\(with_bbox=True, with_mask=True\)'):
        MaskKD().check_dataset(dataset)
