"""Maps of an input that was padded more than another."""

from __future__ import annotations

from torch import Tensor


def crop_padding(teacher: Tensor, seen: Tensor, student_seen: Tensor) -> Tensor:
    """Cut off the part of a map that covers padding which only the teacher's input had."""
    size = tensor_size(teacher, seen, student_seen)
    return teacher if size == teacher.shape[2:] else teacher[:, :, : size[0], : size[1]]


def tensor_size(teacher: Tensor, seen: Tensor, student_seen: Tensor) -> tuple[int, int]:
    """(h, w) that a map of this stride would have on the student's input."""
    h, w = teacher.shape[2:]
    (sh, sw), (th, tw) = student_seen.shape[2:], seen.shape[2:]
    return (h if sh == th else -(-h * sh // th)), (w if sw == tw else -(-w * sw // tw))
