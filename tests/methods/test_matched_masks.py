"""MatchedMasks: the sheet's numbers, pairs of queries whatever their order, and what is refused."""

import copy
import functools

import pytest
import torch
from mask_toys import step
from segmentation_toys import ToySegmentor, make_step, prepare
from torch import nn

from mmkd.datasets.unlabelled import DropLabels
from mmkd.distiller import Distiller
from mmkd.methods.matched_masks import FACTORS, MatchedMasks, mask_costs, mask_terms
from mmkd.schedule import Progress
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.testing import segmentation_batch, tiny_classifier, tiny_mask2former, tiny_pspnet

#: of the sheet, two queries of two classes at three points
U, X = ([[3.0, 0, 0], [0, 0, 3]], [[0.0, 0, 1], [2, 0, 0]])
Y, V = ([[-2.0, -2, 2], [2, 1, -2]], [[3.0, 3, -3], [0, 0, 0]])
TERMS = ('loss_classes', 'loss_masks', 'loss_dice')


def answers(classes, masks, dtype=torch.float64):
    return torch.tensor([classes], dtype=dtype), torch.tensor([masks], dtype=dtype)


STUDENT, TEACHER = answers(X, Y), answers(U, V)
ALL = torch.ones(1, 1, 3, dtype=torch.float64)


def test_costs():  # MC-3
    sure = 1 - TEACHER[0].softmax(-1)[0, :, -1]
    assert sure.tolist() == pytest.approx([0.9547215, 0.0905570], rel=1e-6)
    costs = mask_costs(STUDENT, TEACHER, ALL, FACTORS)
    assert costs[0, :, 0].tolist() == pytest.approx([16.2844183, 2.8238614], rel=1e-6)


def test_terms_of_a_pair():  # MC-4
    terms = mask_terms(STUDENT, TEACHER, ALL, torch.tensor([[-1, 0]]))
    wanted = dict(classes=0.0540648, masks=0.0772174, dice=0.1284264)
    for term, value in terms.items():
        assert value[0].tolist() == pytest.approx([0, wanted[term]], rel=1e-6), term
    q = TEACHER[1][0, 0].sigmoid()
    cross = nn.functional.binary_cross_entropy_with_logits(STUDENT[1][0, 1], q)
    assert float(cross) == pytest.approx(0.2680824, rel=1e-6)
    total = 2 * wanted['classes'] + 5 * float(cross) + 5 * wanted['dice']
    assert total == pytest.approx(2.0906734, rel=1e-6)
    by_index = mask_terms(STUDENT, TEACHER, ALL, torch.tensor([[0, -1]]))
    entropy = -(q * q.log() + (1 - q) * (1 - q).log()).mean()
    masks = float(by_index['masks'][0, 0]) + float(entropy)
    found = 2 * float(by_index['classes'][0, 0]) + 5 * masks + 5 * float(by_index['dice'][0, 0])
    assert found == pytest.approx(15.5512304, rel=1e-6)


def test_costs_of_masks_are_those_of_mmdet():
    from mmdet.models.task_modules.assigners import CrossEntropyLossCost, DiceCost
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    (x, y), (u, v) = ((torch.randn(1, q, 4), 2 * torch.randn(1, q, 9)) for q in (5, 3))
    own, other = InstanceData(masks=y[0]), InstanceData(masks=v[0].sigmoid())
    for term, cost in (
        ('masks', CrossEntropyLossCost(use_sigmoid=True)),
        ('dice', DiceCost(pred_act=True, eps=1.0)),
    ):
        factors = dict.fromkeys(FACTORS, 0.0) | {term: 1.0}
        found = mask_costs((x, y), (u, v), torch.ones(1, 1, 9), factors)
        torch.testing.assert_close(found[0], cost(own, other), rtol=1e-5, atol=1e-6)


class Known(MatchedMasks):
    """The sheet's answers, or other ones, and points that count."""

    given = (STUDENT, TEACHER, ALL)

    def answers(self, trace):
        (x, y), teacher, counted = self.given
        return (x[None], y[None]), teacher, counted


def known(student=STUDENT, teacher=TEACHER, counted=ALL, **options):
    objective = Known(**options)
    objective.given = student, teacher, counted
    return {k: float(v) for k, v in objective(None).items()}


def test_a_step_of_known_answers():  # MC-3, MC-4
    wanted = dict(zip(TERMS, (2 * 0.0540648, 5 * 0.0772174, 5 * 0.1284264), strict=True))
    pairs = wanted | {'pairs': 1}
    assert known(no_object=0) == pytest.approx(pairs)
    none = float(-STUDENT[0][0, 0].log_softmax(-1)[-1])
    left = dict(loss_classes=wanted['loss_classes'] + 0.1 * 2 * none)
    assert known() == pytest.approx(pairs | left)
    halved = known(factors=dict(classes=1, masks=2.5, dice=2.5))
    assert halved == pytest.approx({k: v / (1 + (k != 'pairs')) for k, v in known().items()})
    assert known(score=0)['pairs'] == 2
    q = TEACHER[1][0, 0].sigmoid()
    soft = 1 - float((2 * q.square().sum() + 1) / (2 * q.sum() + 1))
    found = known(dice='difference')
    assert found['loss_dice'] == pytest.approx(known()['loss_dice'] - 5 * soft)


@pytest.mark.parametrize('side', [0, 1])
def test_the_order_of_queries_does_not_matter(side):  # MC-5
    sides = [STUDENT, TEACHER]
    sides[side] = tuple(x.flip(1) for x in sides[side])
    assert known(*sides) == pytest.approx(known(), rel=1e-12)


def test_a_teacher_that_is_sure_of_nothing():  # MC-5
    nothing = known(score=1)
    none = -STUDENT[0].log_softmax(-1)[..., -1]
    assert nothing.pop('loss_classes') == pytest.approx(0.1 * 2 * float(none.mean()))
    assert not any(nothing.values())
    assert not any(known(score=1, no_object=0).values())


@pytest.mark.parametrize('counts', [(1, 3), (6, 3), (3, 1)])
def test_unequal_numbers_of_queries(counts):
    torch.manual_seed(0)
    student, teacher = ((torch.randn(1, q, 4), torch.randn(1, q, 3)) for q in counts)
    found = known(student, teacher, ALL.float(), score=0)
    assert found['pairs'] == min(counts)
    left = (
        found['loss_classes']
        != known(student, teacher, ALL.float(), score=0, no_object=0)['loss_classes']
    )
    assert left == (counts[0] > counts[1])
    assert all(0 < found[term] < 20 for term in TERMS)


def test_points_that_do_not_count():
    counted = torch.tensor([[[1.0, 1, 0]]], dtype=torch.float64)
    fewer = [(x, y[..., :2]) for x, y in (STUDENT, TEACHER)]
    assert known(counted=counted) == pytest.approx(known(*fewer, ALL[..., :2]))
    assert known(counted=counted) != pytest.approx(known())
    assert not any(known(counted=0 * ALL).values())


def test_equality_is_zero_bit_for_bit_where_it_is_said_to_be():
    torch.manual_seed(0)
    own = 3 * torch.randn(2, 5, 4), 5 * torch.randn(2, 5, 40)
    counted = torch.ones(2, 1, 40)
    options = dict(score=0, dice='difference', no_object=0)
    found = known(own, own, counted, **options)
    assert found.pop('pairs') == 5 and not any(found.values())
    assert MatchedMasks(**options).zero_at_equality
    for key in ('dice', 'no_object'):
        kept = {k: v for k, v in options.items() if k != key}
        assert not MatchedMasks(**kept).zero_at_equality
    assert known(own, own, counted, score=0)['loss_dice'] > 0


# ------------------------------------------------------------------------------------ whole steps


@functools.cache
def built(seed, width, **changes):
    torch.manual_seed(seed)
    return build_model(tiny_mask2former(width, **changes))


def network(seed=0, width=4, **changes):
    """A copy of its own, since a teacher is frozen."""
    return copy.deepcopy(built(seed, width, **changes))


def toys(**options):
    """An objective, two toys with unequal numbers of queries, and a step of them."""
    torch.manual_seed(0)
    pair = ToySegmentor(4, queries=5).eval(), ToySegmentor(6, queries=4)
    objective = prepare(MatchedMasks(**options), *pair)
    return objective, make_step(objective, *pair)


def losses_of(objective, trace):
    return {k: float(v.detach()) for k, v in objective(trace).items()}


def test_every_term_reaches_the_student():
    student = network(num_queries=12)
    losses, _ = step(MatchedMasks(), student, network(1, 8), segmentation_batch())
    found = {k.removeprefix('kd.o.'): v for k, v in losses.items() if k.startswith('kd.o.')}
    assert set(found) == {*TERMS, 'pairs'} and float(found['pairs']) == 8
    for term in TERMS:
        assert float(found[term].detach()) > 0
        for part in ('backbone', 'decode_head.transformer_decoder', 'decode_head.pixel_decoder'):
            own = [p for n, p in student.named_parameters() if n.startswith(part)]
            grads = torch.autograd.grad(found[term], own, retain_graph=True, allow_unused=True)
            assert any(g is not None and bool(g.any()) for g in grads), (term, part)


def test_the_student_draws_its_own_points_as_it_does_alone():
    found = []
    student, teacher = network(), network(1, 8)
    for options in (dict(), dict(weight=0)):
        torch.manual_seed(3)
        pair = copy.deepcopy(student), copy.deepcopy(teacher)
        losses, _ = step(MatchedMasks(**options), *pair, segmentation_batch())
        found.append({k: v for k, v in losses.items() if not k.startswith('kd.')})
    torch.manual_seed(3)
    alone = student.train()(*segmentation_batch(), mode='loss')
    assert alone.keys() == found[0].keys() == found[1].keys()
    assert all(torch.equal(one[key], alone[key]) for one in found for key in alone)


def test_points_depend_on_seed_and_iteration():
    objective, trace = toys(points=20)
    first = losses_of(objective, trace)
    torch.rand(3)
    assert losses_of(objective, trace) == first
    other = MatchedMasks(points=20, seed=1)
    other.student_taps, other.teacher_taps = objective.student_taps, objective.teacher_taps
    assert losses_of(other, trace)['loss_masks'] != first['loss_masks']
    trace.progress = Progress(1, 10)
    assert losses_of(objective, trace)['loss_masks'] != first['loss_masks']


def test_all_layers_learn_from_the_last_one():
    batch = segmentation_batch()
    _, trace = step(MatchedMasks(), network(), network(1, 8), batch)
    objective, (tap,) = trace_of('all'), trace.student.calls
    both = objective(trace)
    (classes, masks), *_ = trace.student.calls[tap]
    assert len(classes) == len(masks) == 3  # the first is what queries say before any layer
    apart = []
    for layer in (1, 2):
        trace.student.calls[tap] = [([classes[layer]], [masks[layer]])]
        apart.append(trace_of('last')(trace))
    for term in TERMS:
        torch.testing.assert_close(both[term], apart[0][term] + apart[1][term])
    assert float(both['loss_masks'].detach()) != float(apart[1]['loss_masks'].detach())


def trace_of(layers):
    objective = MatchedMasks(layers=layers)
    objective.bind(network(), network(1, 8))
    return objective


def test_ignored_pixels():
    objective, trace = toys()
    counted = objective.answers(trace)[2]
    assert counted.all()
    for sample in trace.samples:
        sample.gt_sem_seg.data[:, :, :24] = 7
    left = losses_of(objective, trace)
    objective.ignore_index = 7
    share = objective.answers(trace)[2].mean((1, 2))
    assert share.tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert losses_of(objective, trace)['loss_masks'] != left['loss_masks']
    every, _ = toys(mask_ignore=False)
    assert losses_of(every, trace) == left


@pytest.mark.parametrize('mask_ignore', [True, False])
def test_images_without_labels(mask_ignore):
    """They teach where no label is read."""
    inputs, samples = segmentation_batch(4, (64, 64))
    for sample in samples[2:]:
        DropLabels().transform(dict(data_samples=sample))
    objective, seen = MatchedMasks(mask_ignore=mask_ignore), []
    objective.register_forward_hook(
        lambda _, args, found: seen.append((len(args[0].samples), found))
    )
    losses, _ = step(objective, network(), network(1, 8), (inputs, samples))
    assert [count for count, _ in seen] == [2] * (1 if mask_ignore else 2)
    for term in TERMS:
        parts = [float(found[term].detach()) for _, found in seen]
        assert float(losses[f'kd.o.{term}'].detach()) == pytest.approx(sum(parts) / len(parts))
        assert all(part > 0 for part in parts)


@pytest.mark.parametrize('classes', [1, 2])
def test_few_classes(classes):
    models = [network(seed, width, num_classes=classes) for seed, width in ((0, 4), (1, 8))]
    batch = segmentation_batch(num_classes=classes)
    losses, _ = step(MatchedMasks(score=0), models[0], models[1], batch)
    own = [losses[f'kd.o.{term}'] for term in TERMS]
    assert all(value.isfinite() and float(value.detach()) > 0 for value in own)


# --------------------------------------------------------------------------------------- refusals


def plan(student, teacher, **options):
    teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher, 'random')
    return Distiller(student, dict(it=MatchedMasks(**options)), teacher)


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_a_network_that_classifies_pixels(side):
    pair = [network(), build_model(tiny_pspnet(4))]
    pair = pair if side == 'teacher' else pair[::-1]
    with pytest.raises(ValueError, match=f'but the {side} is EncoderDecoder with PSPHead') as error:
        plan(*pair)
    for name in ('KD', 'SKDPixel', 'CWD'):
        assert f' {name} ' in str(error.value)
        Distiller(pair[0], dict(it=dict(type=f'mmkd.{name}')), Teacher(pair[1], 'random'))


def test_other_misfits():
    with pytest.raises(ValueError, match='student has 3 classes and the teacher 4'):
        plan(network(), network(num_classes=4))
    with pytest.raises(ValueError, match='it takes no taps'):
        step(MatchedMasks('decode_head.forward()@scores'), network(), network(1, 8))
    with pytest.raises(ValueError, match='for segmentors, but the student is Classifier'):
        plan(build_model(tiny_classifier()), network())


def test_an_ensemble_has_no_queries():
    members = {name: Teacher(network(seed, 8), 'random') for name, seed in (('one', 1), ('two', 2))}
    with pytest.raises(ValueError, match='MatchedMasks runs parts of the teacher again'):
        plan(network(), Ensemble(members))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(score=1.5), 'score must be a finite number from 0 to 1'),
        (dict(points=0), 'points must be a whole number'),
        (dict(layers='first'), 'layers must be one of'),
        (dict(dice='soft'), 'dice must be one of'),
        (dict(factors=dict(classes=0, masks=0, dice=0)), 'factors of all terms .* are 0'),
        (dict(no_object=-1), 'no_object must be a finite number'),
        (dict(factors=dict(boxes=1)), 'a key of factors must be one of'),
        (dict(seed=-1), 'seed must be a whole number'),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(ValueError, match=f'MatchedMasks.*{said}'):
        MatchedMasks(**options)


def test_what_the_plan_says():
    said = str(plan(network(), network(1, 8), layers='all', score=0.25, points=9).plan)
    assert 'each decoder layer are matched' in said and 'at 0.25 or more' in said
    assert 'by masks at 9 points' in said
