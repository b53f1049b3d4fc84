"""Queries of mmdet's DETRs: recorded and decoded again, without denoising, and points of others."""

import pytest
import torch
from torch import nn

from mmkd.families import queries
from mmkd.families.comparable import Misfit
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import (
    boxes,
    detection_batch,
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_ddq,
    tiny_deformable_detr,
    tiny_detr,
    tiny_dino,
    tiny_retinanet,
)

BUILDERS = dict(
    detr=tiny_detr,
    conditional=tiny_conditional_detr,
    dab=tiny_dab_detr,
    patterns=lambda **k: tiny_dab_detr(num_patterns=2, **k),
    deformable=tiny_deformable_detr,
    two_stage=lambda **k: tiny_deformable_detr(dims=256, as_two_stage=True, **k),
    dino=tiny_dino,
    ddq=tiny_ddq,
)
KINDS = dict(
    detr='embedding',
    conditional='embedding',
    dab='box',
    patterns='box',
    deformable='pair',
    two_stage='selected',
    dino='selected',
    ddq='selected',
)


def network(name, width=4, **changes):
    torch.manual_seed(0)
    model = build_model(BUILDERS[name](width=width, **changes))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))
    return model


def seen(model, training=False, sizes=None):
    """What the taps show in one step; the images may be padded to 64 x 96."""
    inputs, samples = detection_batch(2, (64, 96), 2)
    for sample, size in zip(samples, sizes or [], strict=False):
        sample.set_metainfo(dict(img_shape=size))
    taps = [*queries.output_taps(model), queries.HIDDEN]
    taps += [*queries.memory_taps(model), *queries.point_taps(model)]
    recorder = Recorder(model.train(training), parse_taps(taps))
    with torch.random.fork_rng(), recorder.record(inputs) as side:
        torch.manual_seed(1)
        found = model(inputs, samples, mode='loss' if training else 'tensor')
    return side, found


@pytest.mark.parametrize('name', BUILDERS)
def test_kinds(name):
    assert queries.kind(network(name)) == KINDS[name]


@pytest.mark.parametrize('sizes', [None, [(64, 96), (40, 70)]])
@pytest.mark.parametrize('name', BUILDERS)
def test_decoding_again_gives_the_same(name, sizes):
    """One decoder pass and no encoder, difference 0.0; padded images have masks."""
    model = network(name)
    side, found = seen(model, sizes=sizes)
    again = queries.decode(model, queries.memory(side), queries.points(side))
    for x, y, z in zip(again, queries.outputs(side), found, strict=False):
        assert torch.equal(x, y) and torch.equal(x, z)
    count = 12 if name == 'patterns' else 6
    assert again[0].shape[:3] == again[1].shape[:3] == (2, 2, count)
    assert queries.hidden(side).shape[:3] == (2, 2, count)


@pytest.mark.parametrize('name', ['dino', 'ddq'])
def test_training_adds_queries_that_are_left_out(name):
    model = network(name)
    side, _ = seen(model, training=True)
    whole = side[queries.HEAD][0].shape[2]
    scores, found = queries.outputs(side)
    assert whole > 6 == scores.shape[2] == found.shape[2]
    own = queries.matching(side)
    assert own.start == 8 and (own.stop is not None) == (name == 'ddq')
    at = queries.points(side)
    assert all(x.shape[1] == 6 for x in at.values())
    assert queries.hidden(side).shape[2] == 6
    if name == 'dino':  # the matching part sees neither denoising queries nor, later, the mask
        again = queries.decode(model, queries.memory(side), at)
        torch.testing.assert_close(again[0], scores)
        torch.testing.assert_close(again[1], found)


def test_a_pass_of_ddq_leaves_its_notes_as_they_were():
    model = network('ddq')
    side, _ = seen(model, training=True)
    kept = dict(model.cache_dict)
    scores, _ = queries.decode(model, queries.memory(side), queries.points(side))
    assert scores.shape[2] == 6 and scores.requires_grad
    assert model.cache_dict.keys() == kept.keys()
    assert all(model.cache_dict[key] is kept[key] for key in kept)
    assert model.decoder.training and model.bbox_head.training


@pytest.mark.parametrize('how', ['normal', 'uniform'])
@pytest.mark.parametrize('name', [n for n in BUILDERS if KINDS[n] != 'embedding'])
def test_fresh_points_are_shared_by_all_images_and_both_networks(name, how):
    teacher, student = network(name), network(name, width=8)
    side, own = seen(teacher)[0], seen(student, training=True)[0]
    generator = torch.Generator().manual_seed(0)
    at = queries.fresh_points(side, 5, how, generator)
    for key, value in at.items():
        assert value.shape[:2] == (2, 5) and value.isfinite().all(), key
        if name not in ('dino', 'ddq', 'patterns') or key != 'query':  # rows of each image
            assert torch.equal(value[0], value[1]), key
    for model, record in ((teacher, side), (student, own)):
        scores, places = queries.decode(model, queries.memory(record), at)
        assert scores.shape == (2, 2, 5, 3) and places.shape == (2, 2, 5, 4)
    again = queries.fresh_points(side, 5, how, generator.manual_seed(0))
    assert all(torch.equal(at[key], again[key]) for key in at)


def test_normal_points_crowd_the_middle():
    """Quartiles of a sigmoid of N(0, 1): .34 and .66; of uniform boxes .25 and .75."""
    side, _ = seen(network('dab'))
    for how, low in (('normal', 0.3375), ('uniform', 0.25)):
        at = queries.fresh_points(side, 4000, how, torch.Generator().manual_seed(0))
        centres = at['query_pos'][0, :, :2].sigmoid()
        found = centres.quantile(torch.tensor([0.25, 0.75]))
        assert found.tolist() == pytest.approx([low, 1 - low], abs=0.02)


def test_a_learned_vector_has_no_place():
    with pytest.raises(ValueError, match='DETR are learned vectors without a place'):
        queries.fresh_points(seen(network('detr'))[0], 5)


@pytest.mark.parametrize('name', ['dab', 'two_stage', 'dino'])
def test_points_at_boxes(name):
    side, _ = seen(network(name))
    places = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.0, 1.5]]).expand(2, -1, -1)
    at = queries.points_at(side, places)
    found = at['query_pos'].sigmoid() if name == 'dab' else at['reference_points']
    torch.testing.assert_close(found[:, 0], places[:, 0])
    assert all(x.isfinite().all() for x in at.values())


def test_boxes_of_any_width_but_not_vectors():
    """DAB-DETR's points are boxes, so the widths of two decoders may differ."""
    for name, fits in (('dab', True), ('deformable', False)):
        student, teacher = network(name), network(name, dims=32)
        assert (student.embed_dims, teacher.embed_dims) == (16, 32)
        if fits:
            queries.check_shared_points('KDDETR', student, teacher, 'take another')
            at = queries.points(seen(teacher)[0])
            queries.decode(student, queries.memory(seen(student)[0]), at)
        else:
            with pytest.raises(Misfit, match='embed_dims .* 16 and .* 32; take another'):
                queries.check_shared_points('KDDETR', student, teacher, 'take another')


@pytest.mark.parametrize(
    ('student', 'teacher', 'said'),
    [
        ('detr', 'dab', r'query_pos \(embedding\) .* \(box\); else'),
        ('two_stage', 'dino', r'query_pos, reference_points \(selected\) .*; else'),
        ('dab', 'patterns', 'numbers of patterns: .* 0 .* 2'),
    ],
)
def test_points_that_mean_something_else(student, teacher, said):
    with pytest.raises(Misfit, match=said):
        queries.check_shared_points('KDDETR', network(student), network(teacher), 'else')


class Spoken(nn.Module):
    """A head that scores the words of a text, as Grounding DINO's."""

    def forward(self, hidden_states, references, memory_text, text_token_mask):
        return hidden_states


def test_no_decoders_or_other_classes():
    detr, retina = network('detr'), build_model(tiny_retinanet(4))
    with pytest.raises(
        Misfit, match='student is RetinaNet with RetinaHead and the teacher is DETR'
    ):
        queries.check_decoders('KDDETR', retina, detr)
    with pytest.raises(Misfit, match="class counts: the student's head has 3 and the teacher's 4"):
        queries.check_decoders('KDDETR', detr, network('dino', num_classes=4))
    words = network('detr')
    words.bbox_head = Spoken()
    assert queries.kind(words) is None
    with pytest.raises(Misfit, match='Spoken scores words of a text'):
        queries.check_decoders('KDDETR', words, None)


def test_groups_of_queries_are_refused():
    model = network('detr')
    side, _ = seen(model)
    model.num_queries = 3
    with pytest.raises(ValueError, match='decoded 6 queries in this step, but has 3'):
        queries.outputs(side)


def test_classes_of_softmax_and_sigmoid_heads():
    scores = torch.tensor([[2.0, 0, -1, 1]])
    softmax, sigmoid = network('detr'), network('dab')
    p = scores.softmax(-1)[:, :3]
    torch.testing.assert_close(queries.foreground(softmax, scores), p)
    torch.testing.assert_close(queries.binary_logits(softmax, scores), p.logit())
    torch.testing.assert_close(queries.foreground(sigmoid, scores), scores.sigmoid())
    assert queries.binary_logits(sigmoid, scores) is scores
    sure = torch.tensor([[99.0, 0, 0, 0]], requires_grad=True)
    found = queries.binary_logits(softmax, sure)
    found.sum().backward()
    assert found.isfinite().all() and sure.grad.isfinite().all()


def test_ground_truth_of_unequally_many_objects():
    samples = boxes([[0, 0, 32, 64]], [[0, 0, 64, 32], [16, 16, 48, 32]], [], size=(64, 64))
    found, labels, real = queries.ground_truth(samples, torch.zeros(1))
    assert found[0, 0].tolist() == [0.25, 0.5, 0.5, 1.0]
    assert found[1].tolist() == [[0.5, 0.25, 1.0, 0.5], [0.5, 0.375, 0.5, 0.25]]
    assert real.tolist() == [[True, False], [True, True], [False, False]]
    assert labels.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert queries.ground_truth(boxes([]), torch.zeros(1))[0].shape == (1, 1, 4)
