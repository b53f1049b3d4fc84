"""Pairs of queries: the sheet's numbers, permutations, and what scipy cannot take."""

import pytest
import torch

from mmkd.functional.set_matching import assign, pair_costs, pair_terms

FACTORS = dict(classes=1.0, boxes=5.0, giou=2.0)
Z_S = torch.tensor([[2.0, -2], [-2, 1]], dtype=torch.float64)
Q_T = torch.tensor([[0.1, 0.8], [0.9, 0.2]], dtype=torch.float64)
B_S = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.4, 0.4]], dtype=torch.float64)
B_T = torch.tensor([[0.7, 0.7, 0.4, 0.4], [0.3, 0.3, 0.2, 0.4]], dtype=torch.float64)
ENTROPY = 0.8254854


def weighted(partners, *pairs):
    terms = pair_terms(*pairs, partners)
    return sum(FACTORS[term] * float(value.mean()) for term, value in terms.items())


def test_the_sheets_numbers():  # DDT-1
    costs = pair_costs(Z_S, B_S, Q_T, B_T, FACTORS)
    wanted = [10.8375295, 0.8538560, -1.1598103, 9.1830468]
    assert costs.flatten().tolist() == pytest.approx(wanted, rel=1e-6)
    partners = assign(queries=costs)['queries']
    assert partners.tolist() == [1, 0]
    terms = {k: float(v.mean()) for k, v in pair_terms(Z_S, B_S, Q_T, B_T, partners).items()}
    assert terms['classes'] + ENTROPY == pytest.approx(0.8470229, rel=1e-6)
    assert terms['classes'] == pytest.approx(0.0215375, rel=1e-5)
    assert 5 * terms['boxes'] == pytest.approx(5 * 0.1) and 2 * terms['giou'] == pytest.approx(0.5)
    assert weighted(partners, Z_S, B_S, Q_T, B_T) + ENTROPY == pytest.approx(1.8470229, rel=1e-6)


def test_pairs_by_index_would_say_that_a_right_student_is_wrong():
    by_index = torch.tensor([0, 1])
    assert weighted(by_index, Z_S, B_S, Q_T, B_T) + ENTROPY == pytest.approx(12.0102882, rel=1e-6)


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_the_order_of_queries_does_not_matter(side):  # DDT-2
    generator = torch.Generator().manual_seed(0)
    z, q = torch.randn(7, 3, generator=generator), torch.rand(5, 3, generator=generator)
    b, t = (0.1 + 0.8 * torch.rand(n, 4, generator=generator) for n in (7, 5))
    order = torch.randperm(7 if side == 'student' else 5, generator=generator)
    others = (z[order], b[order], q, t) if side == 'student' else (z, b, q[order], t[order])

    def found(*pairs):
        partners = assign(queries=pair_costs(*pairs, FACTORS))['queries']
        assert int((partners >= 0).sum()) == 5  # two of the student's are left over
        return {k: float(v.sum()) for k, v in pair_terms(*pairs, partners).items()}

    assert found(*others) == pytest.approx(found(z, b, q, t), rel=1e-5)


def test_one_detection_finds_its_query():  # HQ-1
    q = torch.tensor([[0.02, 0.85]], dtype=torch.float64)
    box = torch.tensor([[0.68, 0.7, 0.4, 0.4]], dtype=torch.float64)
    z = torch.cat((Z_S, torch.tensor([[-3.0, -3]])))
    b = torch.cat((B_S, torch.tensor([[0.6, 0.6, 0.4, 0.4]])))
    none = dict(boxes=0.0, giou=0.0)
    cross = pair_costs(z, b, q, box, dict(FACTORS, **none))[:, 0]
    assert cross.tolist() == pytest.approx([3.9138560, 0.6301897, 2.7071747], rel=1e-6)
    shift = pair_costs(z, b, q, box, dict(classes=0.0, boxes=1.0, giou=0.0))[:, 0]
    assert shift.tolist() == pytest.approx([1.18, 0.02, 0.18])
    assert assign(queries=pair_costs(z, b, q, box, FACTORS))['queries'].tolist() == [-1, 0, -1]


def test_several_matrices_at_once():
    first = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    second = torch.tensor([[3.0, 1, 2]])
    found = assign(a=first, b=second, empty=torch.zeros(2, 3, 0))
    assert found['a'].tolist() == [[1, 0], [0, 1]]
    assert found['b'].tolist() == [1] and found['empty'].tolist() == [[-1] * 3] * 2


def test_costs_that_are_not_finite_are_named():
    bad = torch.tensor([[1.0, float('nan')], [float('inf'), 0]])
    with pytest.raises(ValueError, match='costs of matching queries: 2 of 4 are NaN or infinite'):
        assign(objects=torch.zeros(2, 2), queries=bad)


def test_nothing_to_be_matched_with():
    z, b = torch.randn(1, 4, 3, requires_grad=True), torch.rand(1, 4, 4, requires_grad=True)
    partners = torch.full((1, 4), -1)
    terms = pair_terms(z, b, torch.zeros(1, 0, 3), torch.zeros(1, 0, 4), partners)
    assert all(float(x.sum()) == 0 and x.requires_grad for x in terms.values())
