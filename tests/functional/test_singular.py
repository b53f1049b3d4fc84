"""Singular vectors: their signs, their partners and their gradients."""

import pytest
import torch

from mmkd.functional.singular import align, aligned_vectors, oriented, right_singular_vectors


def maps(seed=0, shapes=((3, 4, 4), (4, 2, 2)), n=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize('shape', [(3, 4, 5), (9, 2, 2)])
def test_singular_vectors_are_those_of_lapack(shape):
    x = 1e3 * maps(shapes=[shape])[0]
    vectors, values = right_singular_vectors(x, 2)
    _, s, vh = torch.linalg.svd(x.flatten(2).mT, full_matrices=False)
    torch.testing.assert_close(values, s[:, :2])
    torch.testing.assert_close(oriented(vectors), oriented(vh[:, :2].mT))
    single = right_singular_vectors(x.float(), 2)[0].double()
    torch.testing.assert_close(oriented(single), oriented(vectors), atol=1e-4, rtol=0)


@pytest.mark.parametrize('shape', [(3, 4, 5), (9, 2, 2)])
def test_gradient_of_distinct_singular_values(shape):
    x, wanted = maps(n=2, shapes=[shape, shape])
    found = lambda y: aligned_vectors(y, wanted, 2, 1)[0]  # noqa: E731
    assert torch.autograd.gradcheck(found, x.requires_grad_(), atol=1e-4)


@pytest.mark.parametrize(
    'x', [torch.eye(4).view(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.ones(1, 3, 3, 3)]
)
def test_gradient_of_repeated_singular_values_is_finite(x):
    x = x.clone().requires_grad_()
    vectors, values = right_singular_vectors(x, 2)
    (vectors * torch.arange(len(vectors[0]))[:, None] + values[:, None]).sum().backward()
    assert x.grad.isfinite().all() and float(x.grad.abs().max()) < 1e4


def test_partners_are_turned_alike():
    x, y = maps(shapes=((5, 4, 4), (5, 3, 3)))
    own, wanted = aligned_vectors(x, y, 2, 3)
    assert ((own * wanted).sum(1) >= 0).all()
    largest = wanted.gather(1, wanted.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    strength = right_singular_vectors(y, 2)[1]
    torch.testing.assert_close(wanted.norm(dim=1), strength / strength.norm(dim=1, keepdim=True))
    torch.testing.assert_close(aligned_vectors(-3 * x, y, 2, 3)[0], own)
    torch.testing.assert_close(*aligned_vectors(y, y, 2, 3))
    candidates = torch.eye(3)[None, :, [2, 0, 1]] * torch.tensor([1.0, -1, 1])
    assert torch.equal(align(candidates, torch.eye(3)[None]), torch.eye(3)[None])
