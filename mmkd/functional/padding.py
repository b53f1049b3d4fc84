"""Maps of an input that was padded more than another."""

from __future__ import annotations

from torch import Tensor


def crop_padding(teacher: Tensor, seen: Tensor, student_seen: Tensor | tuple[int, int]) -> Tensor:
    """Cut off the part of a map that covers padding which only the teacher's input had.

    Args:
        teacher (Tensor): a map of it, (N, C, h, w).
        seen (Tensor): its input, (N, 3, H, W).
        student_seen (Tensor | tuple[int, int]): the input without that padding, or its (H, W).
    """
    size = tensor_size(teacher, seen, student_seen)
    return teacher if size == teacher.shape[2:] else teacher[:, :, : size[0], : size[1]]


def tensor_size(
    teacher: Tensor, seen: Tensor, student_seen: Tensor | tuple[int, int]
) -> tuple[int, int]:
    """(h, w) that a map of this stride would have on the student's input."""
    h, w = teacher.shape[2:]
    own = student_seen.shape[2:] if isinstance(student_seen, Tensor) else student_seen
    (sh, sw), (th, tw) = own, seen.shape[2:]
    return (h if sh == th else -(-h * sh // th)), (w if sw == tw else -(-w * sw // tw))
