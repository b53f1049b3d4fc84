"""TripletDistillation: triplets against loops, margins, and batches without a triplet."""

import itertools

import pytest
import torch
from row_toys import LABELS, on_rows, random_rows

from mmkd.functional.relations import distances, unit
from mmkd.methods.triplet_distillation import TripletDistillation, margins, triplet_gaps


def test_transcription():
    s, t = (unit(x) for x in random_rows())
    own, wanted = distances(s).square(), distances(t).square()
    triplets = [
        (a, p, n)
        for a, p, n in itertools.permutations(range(5), 3)
        if LABELS[a] == LABELS[p] != LABELS[n]
    ]
    gaps = [max(float(wanted[a, n] - wanted[a, p]), 0) for a, p, n in triplets]
    total = 0.0
    for (a, p, n), gap in zip(triplets, gaps, strict=True):
        margin = 0.3 / max(gaps) * gap + 0.2
        total += max(float(own[a, p] - own[a, n]) + margin, 0)
    found = on_rows(TripletDistillation('x'), *random_rows(), LABELS)
    assert float(found) == pytest.approx(total / len(triplets), rel=1e-5)
    plain = sum(max(float(own[a, p] - own[a, n]) + 0.3, 0) for a, p, n in triplets)
    found = on_rows(TripletDistillation('x', low=0.3, high=0.3), *random_rows(), LABELS)
    assert float(found) == pytest.approx(plain / len(triplets), rel=1e-5)


def test_margins():
    found = margins(torch.tensor([0.2, 0.8, -1.0, 2.0]), torch.tensor(0.8), 0.2, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.275, 0.5, 0.2, 0.5]))
    assert margins(torch.zeros(2), torch.tensor(0.0), 0.2, 0.5).tolist() == [pytest.approx(0.2)] * 2
    gaps, valid = triplet_gaps(torch.zeros(3, 3), torch.tensor([0, 0, 0]))
    assert gaps.shape == (6, 3) and not valid.any()


def test_margins_may_remember_the_largest_gap():
    objective = TripletDistillation('x', running_max=True)
    far, near = random_rows(0)[1], random_rows(1)[1]
    near = near.mean(0) + (near - near.mean(0)) / 50
    s = random_rows()[0]
    own = float(on_rows(TripletDistillation('x'), s, near, LABELS))
    assert float(on_rows(objective.eval(), s, near, LABELS)) == pytest.approx(own)
    assert float(objective.largest) == 0, 'evaluation leaves no trace'
    on_rows(objective.train(), s, far, LABELS)
    largest = float(objective.largest)
    assert largest > 0
    assert float(on_rows(objective, s, near, LABELS)) < own, 'small gaps deserve small margins now'
    assert float(objective.largest) == largest


def test_a_batch_without_triplets_gives_nothing():
    s = random_rows()[0].requires_grad_()
    for labels in (torch.zeros(5).long(), torch.arange(5)):
        loss = on_rows(TripletDistillation('x'), s, random_rows()[1], labels)
        assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, s)[0].any()


def test_labels_must_be_there():
    with pytest.raises(ValueError, match='needs class labels'):
        on_rows(TripletDistillation('x'), *random_rows())


def test_options_out_of_range():
    with pytest.raises(ValueError, match='high must be .* at least 0.5'):
        TripletDistillation(low=0.5, high=0.2)
