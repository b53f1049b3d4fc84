"""Maps of inputs that were padded differently."""

import torch

from mmkd.functional.padding import crop_padding, tensor_size


def test_padding_that_only_the_teacher_had_is_cut_off():
    teacher, seen, student_seen = (
        torch.randn(1, 2, 4, 8),
        torch.zeros(1, 3, 64, 128),
        torch.zeros(1, 3, 40, 100),
    )
    assert torch.equal(crop_padding(teacher, seen, student_seen), teacher[:, :, :3, :7])
    assert crop_padding(teacher, seen, seen) is teacher


def test_size_of_a_map_on_the_students_input():
    teacher, seen = torch.zeros(1, 1, 8, 16), torch.zeros(1, 3, 64, 128)
    assert tensor_size(teacher, seen, torch.zeros(1, 3, 40, 100)) == (5, 13)  # rounded up
    assert tensor_size(teacher, seen, torch.zeros(1, 3, 64, 100)) == (8, 13)
