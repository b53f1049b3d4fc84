"""Similarities of all pairs of places, against the matrices themselves."""

import torch

from mmkd.functional.affinity import row_gaps


def rows_of(x):
    """Similarity of every place of every image with every other, (N, m, m), written out."""
    return torch.stack([image.T @ image for image in x])


def test_row_gaps_are_those_of_the_matrices():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 7), torch.randn(2, 5, 7)
    wanted = (rows_of(student.double()) - rows_of(teacher.double())).square().sum(2)
    found = row_gaps(student, teacher)
    assert found.shape == (2, 7) and found.dtype == torch.float64
    torch.testing.assert_close(found, wanted)


def test_equal_similarities_have_no_gap():
    x = torch.randn(1, 4, 6)
    turned = torch.linalg.qr(torch.randn(4, 4))[0] @ x  # keeps all products
    assert float(row_gaps(x, turned).max()) < 1e-9
    assert (row_gaps(100 * x, 100 * turned) >= 0).all(), (
        'terms that cancel leave no negative square'
    )


def test_gradient():
    student = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: row_gaps(x, teacher), student)
