"""Queries of mmdet's DETRs: their kinds, what can be compared, and what is refused."""

import pytest
import torch
from decoder_toys import BUILDERS, KINDS, network, seen
from torch import nn

from mmkd.families import queries
from mmkd.families.comparable import Misfit
from mmkd.teacher import build_model
from mmkd.testing import (
    boxes,
    tiny_retinanet,
)


@pytest.mark.parametrize('name', BUILDERS)
def test_kinds(name):
    assert queries.kind(network(name)) == KINDS[name]


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
