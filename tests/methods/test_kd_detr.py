"""KDDETR: the sheet's numbers, and mmdet's DETRs that are asked about the same points."""

import copy
import functools

import pytest
import torch
from query_toys import batch, distiller, losses, network, steady
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.families import queries
from mmkd.functional.query_distances import (
    binary_divergence,
    box_terms,
    class_divergence,
    class_norm,
)
from mmkd.methods.kd_detr import KDDETR, attention_distance
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_retinanet

MEMORY = 'forward_decoder()@in[memory]'
Z_T = torch.tensor([[2.0, 0, -1], [-1, -2, 0]], dtype=torch.float64)
Z_S = torch.tensor([[1.0, 0, 0], [0, 0, 0]], dtype=torch.float64)
B_T = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.25, 0.5, 0.5, 0.5]], dtype=torch.float64)
B_S = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 0.5]], dtype=torch.float64)
A_T = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], dtype=torch.float64)
A_S = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], dtype=torch.float64)


class OfSheet:
    """A trace whose networks have sigmoid heads."""

    class teacher:
        model = network('dab')

    student = teacher


def terms(z_s=Z_S[None, None], b_s=B_S[None, None], order=slice(None), **options):
    objective = KDDETR(**options)
    found = z_s[:, :, order], b_s[:, :, order]
    return objective.terms('general', OfSheet, found, (Z_T[None, order], B_T[None, order]))


def total(found):
    return float(sum(v for k, v in found.items() if k.startswith('loss')))


def approx(value):
    return pytest.approx(value, rel=1e-6)


def test_the_sheets_numbers():  # KDD-1
    sure = Z_T.sigmoid().amax(-1)
    assert sure.tolist() == approx([0.8807971, 0.5])
    assert class_divergence(Z_S, Z_T).tolist() == approx([0.1121257, 0.1108340])
    binary = binary_divergence(Z_S, Z_T.sigmoid())
    assert binary.tolist() == approx([0.1780748, 0.4387574])
    assert float((sure * binary).sum()) == approx(0.3762265)
    found = terms(cls_norm='code')
    wanted = [0.1541770, 5 * 0.0318945, 2 * 0.3189452]
    assert [float(x) for x in found.values()] == pytest.approx(wanted, rel=2e-6)
    assert total(found) == approx(0.9515399)
    assert float(terms()['loss_general_classes']) == approx(1.2334160)  # 8 images' worth of one
    assert float(terms(cls_norm='weights')['loss_general_classes']) == approx(0.154177 / 1.3807971)
    found = terms(classes='sigmoid', cls_norm='code')
    assert float(found['loss_general_classes']) == approx(0.3762265)


def test_every_layer_imitates_the_last_of_the_teacher():  # KDD-2
    z_s, b_s = torch.stack((Z_S, 0 * Z_S))[:, None], torch.stack((B_S, B_T))[:, None]
    found, once = terms(z_s, b_s, cls_norm='code'), terms(cls_norm='code')
    assert float(found['loss_general_classes']) == approx(0.4437886)
    more = found['loss_general_classes'] - once['loss_general_classes']
    assert float(more) == approx(0.2896116)
    for key in ('loss_general_boxes', 'loss_general_giou'):
        assert float(found[key]) == pytest.approx(float(once[key]))


def test_background_is_not_a_class_to_be_sure_of():  # KDD-3
    scores = torch.tensor([2.0, 0, -1, 1])
    assert float(queries.foreground(network('detr'), scores).amax()) == approx(0.6439143)


def test_equal_networks_and_permuted_points():  # KDD-4
    assert total(terms(Z_T[None, None], B_T[None, None])) == pytest.approx(0, abs=1e-12)
    assert total(terms(order=[1, 0])) == pytest.approx(total(terms()))


def test_no_point_counts():
    sure = torch.zeros(1, 2)
    assert [float(class_norm(sure, how)) > 0 for how in ('per_image', 'code', 'weights')]
    assert float(class_norm(torch.ones(4, 2), 'per_image')) == 0.5


def test_attention_of_the_sheet():  # D3-1, D3-2
    rows = [float(attention_distance(s, t)) for s, t in zip(A_S, A_T, strict=True)]
    assert rows == pytest.approx([0.0851228, 0], rel=1e-6, abs=1e-12)
    assert float(attention_distance(A_S, A_T)) == approx(0.0425614)
    for order in ([1, 0, 2], [2, 0, 1]):
        assert float(attention_distance(A_S[:, order], A_T[:, order])) == approx(0.0425614)
    assert float(attention_distance(A_S, A_T, 'mse')) == approx(0.01)


def test_boxes_that_agree():
    assert [float(x.sum()) for x in box_terms(B_T, B_T)] == [0, 0]


# ---------------------------------------------------------------------------------- real networks

SHARED = ('dab', 'deformable', 'two_stage', 'dino', 'ddq')


@pytest.mark.parametrize('name', SHARED)
def test_both_groups_reach_the_student_alone(name):
    student, teacher = network(name), network(name, 8, 1)
    model = distiller(student, teacher, KDDETR(points=4))
    found = losses(model)
    keys = {f'loss_{g}_{t}' for g in ('general', 'specific') for t in ('classes', 'boxes', 'giou')}
    assert set(found) == keys and all(float(x.detach()) > 0 for x in found.values())
    for key in sorted(keys):
        student.zero_grad()
        found[key].backward(retain_graph=True)
        felt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        assert any(n.startswith('encoder') for n in felt), key
        assert any(n.startswith('decoder') for n in felt), key
        assert not any(n.startswith(('query_embedding', 'reference_points_fc')) for n in felt), key
    assert not any(p.grad is not None for p in teacher.parameters())


@pytest.mark.parametrize('name', ['detr', 'conditional'])
def test_learned_vectors_are_specific_alone(name):
    student, teacher = network(name), network(name, 8, 1)
    model = distiller(student, teacher, KDDETR())
    assert model.objectives['it'].points == 0
    assert "asked about the teacher's queries" in str(model.plan)
    assert set(losses(model)) == {f'loss_specific_{t}' for t in ('classes', 'boxes', 'giou')}
    with pytest.raises(ValueError, match='learned vectors without a place; set points=0'):
        distiller(student, teacher, KDDETR(points=300))


@pytest.mark.parametrize('name', ['detr', *SHARED])
def test_a_step_is_the_equation_written_out(name):
    """The specific group: the student's decoder in a pass of its own, at the teacher's queries."""
    student, teacher = network(name), network(name, 8, 1)
    model = steady(distiller(student, teacher, KDDETR(points=0)))
    data = batch()
    found = losses(model, data)
    with torch.no_grad():
        trace = {}
        for who, net in (('s', student), ('t', teacher)):
            net.eval()
            inputs = data[0]
            feats = net.extract_feat(inputs)
            forward = net.forward_decoder
            kept = {}

            def listen(kept=kept, forward=forward, **given):
                kept.update(given)
                return forward(**given)

            net.forward_decoder = listen
            net(inputs, data[1], mode='tensor')
            del net.forward_decoder
            trace[who] = kept, feats
        at = {k: v for k, v in trace['t'][0].items() if 'quer' in k or 'reference' in k}
        if name == 'dab':
            assert not at['query'].any()
        z_t, b_t = teacher.bbox_head(**teacher.forward_decoder(**trace['t'][0]))
        z_s, b_s = student.bbox_head(**student.forward_decoder(**{**trace['s'][0], **at}))
    sure = queries.foreground(teacher, z_t[-1]).amax(-1).double()
    classes = shift = 0.0
    for layer in range(len(z_s)):
        p, q = (z.double() / 10 for z in (z_t[-1], z_s[layer]))
        kl = F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction='none').sum(-1)
        classes += float((sure * 100 * kl / p.shape[-1]).sum()) / 2 * 8
        shift += float((sure * (b_s[layer] - b_t[-1]).abs().mean(-1)).sum() / sure.sum())
    assert float(found['loss_specific_classes'].detach()) == pytest.approx(classes, rel=1e-3)
    assert float(found['loss_specific_boxes'].detach()) == pytest.approx(5 * shift, rel=1e-3)


@pytest.mark.parametrize('name', SHARED)
def test_equal_networks_have_nothing_to_learn(name):
    """Of one decoder layer: otherwise the earlier ones imitate the teacher's last."""
    student = network(name, layers=1)
    model = steady(distiller(student, copy.deepcopy(student), KDDETR(points=4)))
    assert sum(float(x.detach().abs()) for x in losses(model).values()) < 1e-3


def test_groups_do_not_see_each_other():
    """As many random points as there may be, the specific group stays as it is."""
    student, teacher = network('dab'), network('dab', 8, 1)
    once, other = (losses(steady(distiller(student, teacher, KDDETR(points=n)))) for n in (0, 7))
    for key in once:
        assert torch.equal(once[key], other[key])


def test_points_are_drawn_in_each_step():
    model = steady(distiller(network('dab'), network('dab', 8, 1), KDDETR(points=4)))
    key = 'loss_general_boxes'
    first, again, other = (losses(model, seed=s)[key] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    uniform = steady(distiller(network('dab'), network('dab', 8, 1), KDDETR(4, 'uniform')))
    assert not torch.equal(losses(uniform)[key], first)


@pytest.mark.parametrize('name', ['detr', 'conditional', 'dab', 'deformable', 'dino'])
@pytest.mark.parametrize('options', [{}, dict(attention='each', attention_form='mse')])
def test_attention(name, options):
    student, teacher = network(name), network(name, 8, 1, layers=3) if name != 'detr' else None
    teacher = teacher or network('detr', 8, 1)
    objective = KDDETR(points=0, factors=dict(attention=2.0), **options)
    found = losses(distiller(student, teacher, objective))
    value = found['loss_attention']
    value.backward()
    assert float(value.detach()) > 0
    felt = [p.grad for p in student.decoder.layers[0].self_attn.parameters() if p.grad is not None]
    assert any(g.any() for g in felt)
    alone = losses(distiller(network(name), teacher, KDDETR(points=0)))
    assert 'loss_attention' not in alone


@pytest.mark.parametrize('name', ['detr', 'dab'])
def test_attention_before_its_dropout_is_compared(name):
    """Weights that dropout sets to 0 count as 1e-8: about 18 p for each row."""
    student = network(name, layers=1) if name == 'dab' else network(name)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    part = student.decoder.layers[0].self_attn
    teacher = copy.deepcopy(student)
    place = (part.attn_drop, 'p') if name == 'dab' else (part.attn, 'dropout')
    setattr(*place, 0.5)
    model = steady(
        distiller(student, teacher, KDDETR(points=0, attention='each', factors=dict(attention=1)))
    )
    assert float(losses(model)['loss_attention'].detach()) < 1e-4
    assert getattr(*place) == 0.5


def test_decoders_of_other_depth_and_other_numbers_of_queries():
    student = network('dino', num_queries=5, layers=2)
    teacher = network('dino', 8, 1, num_queries=9, layers=3)
    found = losses(distiller(student, teacher, KDDETR(points=12)))
    assert all(float(x.detach()) > 0 for x in found.values())


def test_softmax_beside_sigmoid():
    focal = dict(type='FocalLoss', use_sigmoid=True)
    student = network('detr', bbox_head=dict(loss_cls=focal))
    teacher = network('detr', 8, 1)
    with pytest.raises(
        ValueError, match="sigmoid scores and the teacher's softmax; set classes='s"
    ):
        distiller(student, teacher, KDDETR())
    for pair in ((student, teacher), (network('detr'), student)):
        found = losses(distiller(*pair, KDDETR(classes='sigmoid')))
        assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


@pytest.mark.parametrize('name', ['dab', 'dino'])
@pytest.mark.parametrize('padded', [False, True])
def test_the_checks_of_the_first_steps_pass_with_and_without_masks(name, padded):
    """Images without padding have no mask; DINO's head does not run in train mode in the probe."""
    model = Distiller(
        network(name), dict(it=KDDETR(points=4)), Teacher(network(name, 8, 1), 'random')
    )
    assert {level.tap for level in model.plan.seen['it.student']} >= {MEMORY}
    inputs, samples = batch()
    if padded:
        samples[1].set_metainfo(dict(img_shape=(40, 70)))
    found = model.loss(inputs, samples)
    assert model.guard.alive and found['kd.it.loss_specific_boxes'] > 0


def test_images_without_objects():
    model = distiller(network('dino'), network('dino', 8, 1), KDDETR(points=4))
    found = losses(model, batch(objects=0))
    assert all(x.isfinite() and float(x.detach()) > 0 for x in found.values())


def test_weight_zero_is_stock_training():  # KDD-5
    """No pass of a decoder, no random number: losses and the random state are those of the student."""
    for name in ('dab', 'dino'):
        alone = network(name)
        torch.manual_seed(0)
        wanted = alone(*batch(), mode='loss')
        after = torch.get_rng_state()
        student = network(name)
        passes = []
        forward = student.forward_decoder
        model = distiller(student, network(name, 8, 1), KDDETR(weight=0))

        @functools.wraps(forward)
        def count(*args, passes=passes, forward=forward, **given):
            passes.append(1)
            return forward(*args, **given)

        student.forward_decoder = count
        torch.manual_seed(0)
        found = model.loss(*batch())
        assert torch.equal(torch.get_rng_state(), after) and len(passes) == 1
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
        assert set(found) - set(wanted) <= {'kd.it.loss'}


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('retina', 'dab', 'the student is RetinaNet with RetinaHead and the teacher is DABDETR'),
        ('dab', 'retina', 'the teacher is RetinaNet with RetinaHead'),
        ('dab', 'dino', r'DABDETR.* \(box\) .* DINO.* \(selected\)'),
        ('dab', 'four', "class counts: the student's head has 3 and the teacher's 4"),
        ('dino', 'wide', "embed_dims .* 16 and the teacher's 32; DETRDistill with factors"),
    ],
)
def test_refused(student, teacher, said):
    wide = dict(dims=32)
    kinds = dict(
        retina=lambda: build_model(tiny_retinanet(4)),
        four=lambda: network('dab', num_classes=4),
        dab=lambda: network('dab'),
        dino=lambda: network('dino'),
        wide=lambda: network('deformable', **wide),
    )
    if teacher == 'wide':
        student, said = 'deformable', said
        kinds['deformable'] = lambda: network('deformable')
    with pytest.raises(ValueError, match=said):
        Distiller(kinds[student](), dict(it=KDDETR()), Teacher(kinds[teacher](), 'random'))


def test_options_that_leave_nothing():
    with pytest.raises(ValueError, match='nothing to compare'):
        distiller(network('dab'), network('dab', 8), KDDETR(points=0, specific=False))
    with pytest.raises(ValueError, match='attention is compared in the pass'):
        KDDETR(specific=False, factors=dict(attention=1))


def test_a_decoder_without_weights_of_attention():
    student = network('dab')
    student.decoder.layers[0].self_attn = torch.nn.Identity()
    with pytest.raises(ValueError, match='Identity in the decoder of DABDETR does not give'):
        distiller(student, network('dab', 8), KDDETR(factors=dict(attention=1)))
