"""What a sampler promises about the batches of an epoch."""

import pytest
import torch

from mmkd.datasets.samplers import (
    ClassPairSampler,
    ClassUniformSampler,
    SuperClassUniformSampler,
    labels_of,
)


class Images:
    """A dataset of nothing but classes."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def get_data_info(self, index):
        label = self.labels[index]
        return {} if label is None else dict(gt_label=label)


LABELS = [0, 1, 0, 2, 1, 0, 1, 0, 0, 1, 3]


def batches(sampler, size):
    return [list(part) for part in torch.tensor(list(sampler)).split(size)]


def test_every_image_is_an_anchor_once_and_has_a_partner_of_its_class():
    sampler = ClassPairSampler(Images(LABELS), batch_size=6, seed=0)
    drawn = batches(sampler, 6)
    assert len(sampler) == sum(map(len, drawn)) == 2 * len(LABELS)
    anchors = []
    for batch in drawn:
        half = len(batch) // 2
        anchors += [int(i) for i in batch[:half]]
        for anchor, partner in zip(batch[:half], batch[half:], strict=True):
            assert LABELS[anchor] == LABELS[partner]
            assert anchor == partner or LABELS.count(LABELS[anchor]) > 1
    assert sorted(anchors) == list(range(len(LABELS)))


def test_all_images_of_the_class_are_drawn_the_anchor_too():
    sampler, partners = ClassPairSampler(Images([0] * 5), batch_size=2, seed=0), set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        partners |= {p for a, p in zip(drawn[::2], drawn[1::2], strict=True) if a == 0}
    assert partners == {0, 1, 2, 3, 4}


def test_a_class_of_one_image_is_told_once(log):
    ClassPairSampler(Images([0, 0, 1, 2]), batch_size=2, seed=0)
    assert log.text.count('2 classes have one image, which is its own partner') == 1


def test_epochs_differ_and_repeat():
    sampler = ClassPairSampler(Images(LABELS), batch_size=4, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_ranks_share_the_anchors(monkeypatch):
    anchors = []
    for rank in range(2):
        monkeypatch.setattr('mmkd.datasets.samplers.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = ClassPairSampler(Images(LABELS), batch_size=4, seed=0)
        drawn = batches(sampler, 4)
        assert sum(map(len, drawn)) == len(sampler) == 12
        anchors += [int(i) for batch in drawn for i in batch[: len(batch) // 2]]
    assert set(anchors) == set(range(len(LABELS))) and len(anchors) == 12


def test_what_is_refused():
    with pytest.raises(ValueError, match='batch_size must be even, found 3'):
        ClassPairSampler(Images(LABELS), batch_size=3)
    with pytest.raises(ValueError, match='no gt_label'):
        labels_of(Images([0, None]))


MANY = [i % 5 for i in range(43)] + [7, 7]  # class 7 has two images


def test_batches_of_equally_many_images_of_each_class():
    sampler = ClassUniformSampler(Images(MANY), batch_size=12, per_class=4, seed=0)
    drawn = batches(sampler, 12)
    assert len(sampler) == sum(map(len, drawn)) == 36
    seen = set()
    for batch in drawn:
        classes = [MANY[int(i)] for i in batch]
        groups = [classes[k : k + 4] for k in range(0, 12, 4)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == 3
        for k in range(0, 12, 4):
            assert len({int(i) for i in batch[k : k + 4]}) == (2 if classes[k] == 7 else 4)
        seen |= set(classes)
    assert len(seen) > 3
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_ranks_draw_their_own_batches(monkeypatch):
    drawn = []
    for rank in range(2):
        monkeypatch.setattr('mmkd.datasets.samplers.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = ClassUniformSampler(Images(MANY), batch_size=8, per_class=2, seed=0)
        assert len(sampler) == 16
        drawn.append(list(sampler))
    assert drawn[0] != drawn[1]


def test_super_classes_are_clusters_of_embeddings(tmp_path):
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    group = torch.arange(45) % 3
    file = str(tmp_path / 'embeddings.pth')
    torch.save(centres[group] + 0.1 * torch.randn(45, 2), file)
    options = dict(embeddings=file, clusters=3, batch_size=8, per_class=4, seed=0)
    sampler = SuperClassUniformSampler(Images([0] * 45), **options)
    for batch in batches(sampler, 8):
        assert [len(set(group[torch.stack(part)].tolist())) for part in (batch[:4], batch[4:])] == [
            1,
            1,
        ]
    with pytest.raises(ValueError, match=r'must hold a tensor \(44, D\).*found \(45, 2\)'):
        SuperClassUniformSampler(Images([0] * 44), **options)
    with pytest.raises(FileNotFoundError, match=r'no file nowhere\.pth\. Write it once with'):
        SuperClassUniformSampler(Images([0] * 45), **{**options, 'embeddings': 'nowhere.pth'})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(batch_size=10, per_class=4), 'multiple of per_class, found 10 and 4'),
        (dict(batch_size=10, per_class=0), 'per_class must be a whole number of at least 1'),
        (dict(batch_size=14, per_class=2), '2 images each of 7 classes, but there are 6'),
    ],
)
def test_batches_that_cannot_be_made(options, message):
    with pytest.raises(ValueError, match=message):
        ClassUniformSampler(Images(MANY), **options)
