"""Decoders of DETRs run again: on their own queries, without denoising, and on points of others."""

import pytest
import torch
from decoder_toys import BUILDERS, KINDS, network, seen

from mmkd.families import queries, query_decoding
from mmkd.families.comparable import Misfit


@pytest.mark.parametrize('sizes', [None, [(64, 96), (40, 70)]])
@pytest.mark.parametrize('name', BUILDERS)
def test_decoding_again_gives_the_same(name, sizes):
    """One decoder pass and no encoder, difference 0.0; padded images have masks."""
    model = network(name)
    side, found = seen(model, sizes=sizes)
    again = query_decoding.decode(model, queries.memory(side), queries.points(side))
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
        again = query_decoding.decode(model, queries.memory(side), at)
        torch.testing.assert_close(again[0], scores)
        torch.testing.assert_close(again[1], found)


def test_a_pass_of_ddq_leaves_its_notes_as_they_were():
    model = network('ddq')
    side, _ = seen(model, training=True)
    kept = dict(model.cache_dict)
    scores, _ = query_decoding.decode(model, queries.memory(side), queries.points(side))
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
    at = query_decoding.fresh_points(side, 5, how, generator)
    for key, value in at.items():
        assert value.shape[:2] == (2, 5) and value.isfinite().all(), key
        if name not in ('dino', 'ddq', 'patterns') or key != 'query':  # rows of each image
            assert torch.equal(value[0], value[1]), key
    for model, record in ((teacher, side), (student, own)):
        scores, places = query_decoding.decode(model, queries.memory(record), at)
        assert scores.shape == (2, 2, 5, 3) and places.shape == (2, 2, 5, 4)
    again = query_decoding.fresh_points(side, 5, how, generator.manual_seed(0))
    assert all(torch.equal(at[key], again[key]) for key in at)


def test_normal_points_crowd_the_middle():
    """Quartiles of a sigmoid of N(0, 1): .34 and .66; of uniform boxes .25 and .75."""
    side, _ = seen(network('dab'))
    for how, low in (('normal', 0.3375), ('uniform', 0.25)):
        at = query_decoding.fresh_points(side, 4000, how, torch.Generator().manual_seed(0))
        centres = at['query_pos'][0, :, :2].sigmoid()
        found = centres.quantile(torch.tensor([0.25, 0.75]))
        assert found.tolist() == pytest.approx([low, 1 - low], abs=0.02)


def test_a_learned_vector_has_no_place():
    with pytest.raises(ValueError, match='DETR are learned vectors without a place'):
        query_decoding.fresh_points(seen(network('detr'))[0], 5)


@pytest.mark.parametrize('name', ['dab', 'two_stage', 'dino'])
def test_points_at_boxes(name):
    side, _ = seen(network(name))
    places = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.0, 1.5]]).expand(2, -1, -1)
    at = query_decoding.points_at(side, places)
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
            query_decoding.decode(student, queries.memory(seen(student)[0]), at)
        else:
            with pytest.raises(Misfit, match='embed_dims .* 16 and .* 32; take another'):
                queries.check_shared_points('KDDETR', student, teacher, 'take another')
