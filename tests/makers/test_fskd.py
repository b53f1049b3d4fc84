"""FSKD: the sheet's least squares, merging through a BatchNorm, and what few images give."""

import copy

import pytest
import torch
from chain_toys import recipe
from network_toys import made
from torch import nn

from mmkd.chain import Product, build_maker
from mmkd.config import load_config
from mmkd.edits import Widths, same_outputs
from mmkd.makers.channel_groups import inner_groups
from mmkd.makers.chosen_channels import chosen_state
from mmkd.makers.fskd import FSKD, least_squares, merge, moments, residual
from mmkd.makers.pictures import training_batches
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_classifier, tiny_faster_rcnn

X = torch.tensor([[1, 0], [0, 1], [1, 1], [2, 1.0]], dtype=torch.float64)
NOISE = torch.tensor([[0.01, 0], [0, -0.01], [0, 0.01], [-0.01, 0]], dtype=torch.float64)
Y = X @ torch.tensor([[1, 0.2], [0, 0.9]], dtype=torch.float64) + NOISE
SUMS = dict(xx=X.T @ X, xy=X.T @ Y, yy=Y.square().sum())


def near(found, expected):
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=5e-7)


def test_numbers_of_the_sheet():
    mixing = least_squares(SUMS['xx'], SUMS['xy'])
    assert near(mixing, [[1, 0.203333], [-0.003333, 0.896667]])
    assert residual(SUMS, mixing) ** 0.5 == pytest.approx(0.018257, abs=5e-7)
    unit = torch.eye(2, dtype=torch.float64)
    assert residual(SUMS, unit) ** 0.5 == pytest.approx(0.392938, abs=5e-7)
    ridge = least_squares(SUMS['xx'], SUMS['xy'], 1e-2)
    assert near(ridge, [[0.985386, 0.21324], [0.011114, 0.873656]])


def test_the_same_network_needs_no_layer():
    torch.manual_seed(0)
    x = torch.randn(50, 6, dtype=torch.float64)
    unit = least_squares(x.T @ x, x.T @ x)
    assert (unit - torch.eye(6, dtype=torch.float64)).abs().max() < 1e-12


@pytest.mark.parametrize('bias', [False, True])
def test_merged_through_the_batch_norm_in_both_modes(bias):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=bias).double(), nn.BatchNorm2d(4).double()
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value.data)
    norm.running_var.uniform_(0.5, 2)
    images, mixing = torch.randn(4, 3, 8, 8).double(), torch.randn(4, 4).double()
    norm.eval()
    with torch.no_grad():
        out = norm(conv(images))
        expected = torch.einsum('nchw,cj->njhw', out, mixing)
        x = out.transpose(0, 1).flatten(1)
        merge(conv, norm, mixing, x.mean(1), x @ x.T / x.shape[1])
        assert (norm(conv(images)) - expected).abs().max() < 1e-13
        assert (norm.train()(conv(images)) - expected).abs().max() < 1e-13
    assert not bias or not conv.bias.any()


@pytest.fixture(scope='module')
def source(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    config = recipe(images, width=8)
    config.train_dataloader.dataset.pipeline.pop(1)  # the flip
    config.dump(folder / 'plain.py')
    torch.manual_seed(0)
    model = build_model(tiny_classifier(8)).eval()
    for module in model.modules():  # BatchNorms of a trained network
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value.data, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'plain.pth')
    return Product(str(folder / 'plain.py'), str(folder / 'plain.pth'), ''), model


def test_aligned_layers_are_nearer_to_the_whole_network(source, tmp_path):
    product, whole = source
    _, cut = made('Prune', product, tmp_path, ratio=0.5, where='inner')
    _, aligned = made('FSKD', product, tmp_path, images=12)
    assert {k: v.shape for k, v in cut.state_dict().items()} == {
        k: v.shape for k, v in aligned.state_dict().items()
    }
    batches = [*training_batches(load_config(product.config), whole, 12, 4)]
    norm, every = 'backbone.layer3.0.bn1', range(16)
    keep = whole.backbone.layer3[0].conv1.weight.abs().flatten(1).sum(1).argsort(descending=True)
    keep = sorted(keep[: len(every)].tolist())
    gaps = [
        residual(sums, torch.eye(len(keep), dtype=torch.float64))
        for network in (cut, aligned)
        for sums in [moments(whole, network, norm, keep, batches)]
    ]
    assert gaps[1] < 0.8 * gaps[0]


def test_nothing_to_drop_is_the_network_itself(source, tmp_path):
    product, whole = source
    _, same = made('FSKD', product, tmp_path, ratio=0)
    assert same_outputs(whole, same)[0] == 0
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in whole.state_dict().items())


def test_detectors_are_aligned_in_their_backbone():
    torch.manual_seed(0)
    whole = build_model(tiny_faster_rcnn(4)).eval()
    group = next(g for g in inner_groups(whole) if g.name == 'backbone.layer2.0.conv1')
    state, sizes = chosen_state(whole, [(group, [0, 2, 3, 6])])
    cut = Widths(sizes)(copy.deepcopy(whole))
    cut.load_state_dict(state)
    with torch.no_grad():
        cut.backbone.layer2[0].conv1.weight.mul_(0.5)
    before, after = FSKD(ridge=0).align(whole, cut, group, [0, 2, 3, 6], [detection_batch(1)])
    assert before > 1e-3 and after < 1e-10


def test_more_ridge_stays_nearer_to_zero(source, tmp_path):
    product, _ = source
    norms = []
    for ridge in (1e-2, 10.0):
        _, model = made('FSKD', product, tmp_path, images=12, ridge=ridge)
        norms.append(float(model.backbone.layer1[0].conv1.weight.detach().norm()))
    assert norms[1] < norms[0]


def test_fewer_images_than_channels(source, tmp_path, log):
    product, _ = source
    words = 'FSKD: the images give 4 positions for the 16 channels of backbone.layer3.0.conv1'
    with pytest.raises(ValueError, match=words):
        made('FSKD', product, tmp_path, images=1, ridge=0)
    made('FSKD', product, tmp_path, images=1)
    assert words in log.text and 'Take more images' in log.text


@pytest.mark.parametrize('options', [dict(ratio=1), dict(images=0), dict(ridge=-1)])
def test_bad_options(options):
    with pytest.raises(ValueError, match=f'FSKD: {next(iter(options))} must be'):
        build_maker(dict(type='mmkd.FSKD', **options))
