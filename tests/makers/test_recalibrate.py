"""Recalibrate: BatchNorm statistics as plain means over batches."""

import pytest
import torch
from chain_toys import recipe
from torch import nn

from mmkd.chain import Product, build_maker
from mmkd.makers.recalibrate import estimate
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import tiny_classifier


class Net(nn.Module):
    """One BatchNorm; a batch is its input."""

    def __init__(self, momentum=0.1):
        super().__init__()
        self.norm, self.seen = nn.BatchNorm1d(1, momentum=momentum), []

    def data_preprocessor(self, batch, training):
        return dict(inputs=batch)

    def forward(self, inputs, mode):
        self.seen.append((mode, self.training, self.norm.training))
        return self.norm(inputs)


def test_all_batches_count_alike():  # C, BN re-estimation [V]
    batches = [torch.full((2, 1), x) for x in (1.0, 2.0, 6.0)]
    net = Net().train()
    assert estimate(net, iter(batches)) == 3
    assert net.norm.running_mean.item() == pytest.approx(3)
    assert net.seen == [('loss', False, True)] * 3
    assert net.training and net.norm.momentum == 0.1
    moving = Net()
    for x in batches:
        moving.norm(x)
    assert moving.norm.running_mean.item() == pytest.approx(0.861)


def test_without_statistics():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(ValueError, match='Sequential has no BatchNorm that keeps statistics'):
        estimate(net, iter([]))


@pytest.fixture(scope='module')
def source(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    recipe(images).dump(folder / 'plain.py')
    torch.manual_seed(0)
    state = build_model(tiny_classifier(4)).state_dict()
    torch.save(dict(state_dict=state, meta={}), folder / 'plain.pth')
    return Product(str(folder / 'plain.py'), str(folder / 'plain.pth'), '')


def made(folder, source, **options):
    folder.mkdir(exist_ok=True)
    maker = build_maker(dict(type='mmkd.Recalibrate', batches=3, **options))
    product = maker(dict(student=source), str(folder))
    load_strictly(build_model(product.config), product.checkpoint)
    return torch.load(product.checkpoint)['state_dict']


def test_statistics_alone_change_and_are_those_of_the_edited_network(source, tmp_path):
    before = torch.load(source.checkpoint)['state_dict']
    plain = made(tmp_path / 'plain', source)
    moved = {key for key, value in plain.items() if not torch.equal(value, before[key])}
    assert moved and all(key.endswith(('mean', 'var', 'tracked')) for key in moved)
    again = made(tmp_path / 'again', source)
    assert all(torch.equal(value, again[key]) for key, value in plain.items())
    edit = dict(type='mmkd.FakeQuant', bits=2)
    edited = made(tmp_path / 'edited', source, edits=edit)
    differ = {key for key, value in plain.items() if not torch.equal(value, edited[key])}
    assert differ and all(key.endswith(('mean', 'var')) for key in differ), 'weights are not baked'


def test_bad_input():
    with pytest.raises(ValueError, match='Recalibrate: batches must be a whole number'):
        build_maker(dict(type='mmkd.Recalibrate', batches=0))
