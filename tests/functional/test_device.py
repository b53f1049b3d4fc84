import torch

from mmkd.functional.device import members, positions, sizes_of_groups, upload


def test_positions_are_those_of_nonzero():
    for mask in (torch.tensor([0, 1, 1, 0, 1]), torch.zeros(4), torch.ones(3)):
        mask = mask.bool()
        assert torch.equal(positions(mask, int(mask.sum())), mask.nonzero()[:, 0])


def test_groups():
    groups = torch.tensor([2, 0, 2])
    assert sizes_of_groups(groups, 4).tolist() == [1, 0, 2, 0]
    assert members(groups, 3).int().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert sizes_of_groups(groups[:0], 2).tolist() == [0, 0]


def test_upload_takes_the_type_of_its_neighbour():
    like = torch.zeros(1, dtype=torch.float64)
    assert upload([1, 2], like).dtype == torch.float64
    assert upload(torch.tensor([1.5]), like, torch.long).tolist() == [1]
