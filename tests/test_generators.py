"""Generators that leave the run's own random numbers alone."""

import torch

from mmkd.generators import snapshot, step_generator


def drawn(*numbers, **options):
    return torch.rand(4, generator=step_generator(*numbers, **options)).tolist()


def test_a_steps_generator_depends_on_seed_iteration_and_number():
    draws = [drawn(*numbers) for numbers in ((0, 5, 0), (1, 5, 0), (0, 6, 0), (0, 5, 1))]
    assert draws[0] == drawn(0, 5, 0)
    assert all(draws[0] != other for other in draws[1:])


def test_ranks_draw_unlike_numbers(monkeypatch):
    first = drawn(3, 7)
    assert first == drawn(3, 7, 0)
    monkeypatch.setattr('mmkd.generators.get_rank', lambda: 1)
    assert drawn(3, 7) == drawn(3, 7, 1) != first


def test_no_other_generator_is_moved_and_large_numbers_do_not_overflow():
    before = snapshot()[2]
    drawn(2**62, 10**9, 10**9)
    assert torch.equal(before, snapshot()[2])
