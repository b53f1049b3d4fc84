"""Taps: the grammar, what is recorded, and what must never be left behind."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd.tap import Recorder, Side, Tap, TapError, parse_taps, require_gradient
from mmkd.testing import ToyNet, pixels


def record(model, *taps, mode='tensor'):
    recorder = Recorder(model, parse_taps(taps))
    with recorder.record(pixels()) as side:
        model(side.inputs, mode=mode)
    return side


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(
    ('text', 'path', 'call', 'arg', 'index'),
    [
        ('neck', 'neck', False, None, None),
        ('neck[0:4]', 'neck', False, None, slice(0, 4)),
        ('neck[-1]', 'neck', False, None, -1),
        ('neck[::2]', 'neck', False, None, slice(None, None, 2)),
        ('backbone.layer3', 'backbone.layer3', False, None, None),
        ('decode_head.0.conv_seg', 'decode_head.0.conv_seg', False, None, None),
        ('head.fc@in[0]', 'head.fc', False, '0', None),
        ('head.fc@in[input][2]', 'head.fc', False, 'input', 2),
        ('rpn_head.get_targets()', 'rpn_head.get_targets', True, None, None),
        ('bbox_head.loss_by_feat()@in[1]', 'bbox_head.loss_by_feat', True, '1', None),
    ],
)
def test_grammar(text, path, call, arg, index):
    tap = Tap.parse(text)
    assert (tap.path, tap.call, tap.arg, tap.index) == (path, call, arg, index)
    assert str(tap) == text and Tap.parse(tap) is tap


def test_scores_of_masks():
    tap = Tap.parse('decode_head.forward()@scores')
    assert tap.scores and tap.background is None and tap.source == str(tap)
    tap = Tap.parse('panoptic_head.forward()@scores(background=80)')
    assert (tap.path, tap.call, tap.background) == ('panoptic_head.forward', True, 80)
    for text in ('decode_head@scores', 'a.b()@scores(80)', 'a.b()@scores[0]', 'a.b()[0]@scores'):
        with pytest.raises(TapError, match='not an address'):
            Tap.parse(text)


def test_scores_are_made_of_the_last_layer():
    x, y = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 6, 7)
    side = Side(nn.Module(), torch.zeros(2, 3, 24, 28))
    tap = 'decode_head.forward()@scores'
    side.calls[tap] = [(x, y)]
    (map_,) = side[tap]
    assert map_.shape == (2, 3, 6, 7) and torch.equal(map_, side.maps(tap)[0].at())
    side.calls[tap] = [[map_]]  # a mean of several networks has made them
    assert torch.equal(side[tap][0], map_) and torch.equal(side.maps(tap)[0], map_)
    side.calls[tap] = [(x, x)]
    with pytest.raises(TapError, match=r"'decode_head.forward\(\)@scores': class scores are made"):
        side[tap]


def test_earlier_layers_of_masks_are_not_kept():
    class Head(nn.Module):
        def forward(self, x):
            return [x] * 3, [x[:, :, None]] * 3

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.decode_head = Head()

        def forward(self, x, mode='tensor'):
            return self.decode_head(x)

    x = torch.randn(2, 5, 4, requires_grad=True)
    recorder = Recorder(net := Net(), parse_taps('decode_head.forward()@scores'))
    with recorder.record(torch.zeros(2, 3, 8, 8)) as side:
        net(x)
    (kept,) = side.raw('decode_head.forward()@scores')
    assert [len(part) for part in kept] == [1, 1]
    assert len(side.places('decode_head.forward()@scores')) == 2


@pytest.mark.parametrize('text', ['', 'neck[', 'neck[x]', '.neck', 'neck[1:2:3:4]', 'a b', 3, None])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(TapError, match=r'not an address|neither a number'):
        Tap.parse(text)


def test_a_pyramid_is_a_list_and_a_map_a_list_of_one():
    net = ToyNet()
    side = record(net, 'neck', 'backbone', 'head.fc@in[0]', 'head.fc@in[input]')
    assert [t.shape[2:] for t in side['neck']] == [(8, 12), (4, 6)]
    assert torch.equal(side['neck[1]'][0], side['neck'][1])
    assert torch.equal(side['neck[1:]'][0], side['neck'][1])
    assert len(side['backbone']) == 1
    assert torch.equal(side['head.fc@in[0]'][0], side['head.fc@in[input]'][0])


def test_a_shared_layer_gives_one_entry_a_call():
    side = record(ToyNet(), 'head.shared')
    assert [t.shape[2:] for t in side['head.shared']] == [(8, 12), (4, 6)]


def test_indices_out_of_range_say_what_there_is():
    side = record(ToyNet(), 'neck')
    for tap in ('neck[2]', 'neck[-3]', 'neck[5:]'):
        with pytest.raises(TapError, match="'neck' gave 2 tensors"):
            side[tap]


def test_values_are_float32_and_raw_is_untouched():
    net = ToyNet().double()
    with Recorder(net, parse_taps(['neck', 'extract_feat()'])).record(pixels()) as side:
        feats = net.extract_feat(pixels().double())
    assert side['neck'][0].dtype == torch.float32
    assert side.raw('neck')[0][0].dtype == torch.float64
    assert side.raw('extract_feat()')[0] is feats
    assert Side(net, pixels(), {'n': [torch.ones(2, dtype=torch.long)]})['n'][0].dtype == torch.long


def test_what_was_seen_may_be_nothing():
    """An argument that is None, a place that never fired: no error, unlike indexing."""
    x = torch.ones(2, dtype=torch.float16)
    side = Side(nn.Module(), torch.zeros(1), {'f()@in[mask]': [None], 'neck': [[x, x]]})
    assert side.seen('f()@in[mask]') == side.seen('head') == side.seen('neck[2]') == []
    assert side.seen('neck[1]')[0] is x
    with pytest.raises(TapError, match='selects nothing'):
        side['f()@in[mask]']


def test_no_hook_stays_whatever_happens():
    net = ToyNet()
    recorder = Recorder(net, parse_taps(['neck', 'head.fc@in[0]', 'extract_feat()']))
    before = dict(net.__dict__)
    with pytest.raises(RuntimeError, match='in between'), recorder.record(pixels()):
        assert hook_count(net) == 2
        assert 'extract_feat' in net.__dict__
        raise RuntimeError('in between')
    assert hook_count(net) == 0
    assert net.__dict__.keys() == before.keys()


def test_a_copy_made_while_recording_is_the_only_one_that_listens_to_nothing_later():
    net = ToyNet()
    with Recorder(net, parse_taps('neck')).record(pixels()) as side:
        net(pixels())
    twin = copy.deepcopy(net)
    twin(pixels())
    assert len(side.raw('neck')) == 1


class Targets(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def get_targets(self, boxes, scale=1):
        return InstanceData(boxes=boxes * scale)

    def forward(self, x):
        return self.fc(self.get_targets(x, scale=2).boxes)


def test_a_method_tap_wraps_the_instance_and_never_the_class():
    first, second = Targets(), Targets()
    original = Targets.get_targets
    taps = parse_taps(['get_targets()', 'get_targets()@in[0]', 'get_targets()@in[scale]'])
    with Recorder(first, taps).record(torch.zeros(1)) as side:
        assert Targets.get_targets is original
        second(torch.ones(1, 2))
        assert not side.calls
        first(torch.ones(1, 2))
    assert 'get_targets' not in first.__dict__
    assert side.raw('get_targets()')[0].boxes.tolist() == [[2, 2]]
    assert side['get_targets()@in[0]'][0].tolist() == [[1, 1]]
    assert side.raw('get_targets()@in[scale]') == [2]


def test_a_method_that_was_replaced_on_the_instance_comes_back():
    net = Targets()
    mine = net.get_targets = lambda boxes, scale: InstanceData(boxes=boxes * 0)
    with Recorder(net, parse_taps('get_targets()')).record(torch.zeros(1)):
        net(torch.ones(1, 2))
    assert net.get_targets is mine


def test_a_missing_argument_says_which_there_are():
    with pytest.raises(TapError, match=r"no argument mask; it had \['input'\]"):
        record(ToyNet(), 'head.fc@in[mask]')


def test_a_misspelt_path_names_its_neighbours():
    with pytest.raises(TapError, match=r"no module 'nek'.*Near-by names: .*neck"):
        Recorder(ToyNet(), parse_taps('nek'))
    with pytest.raises(TapError, match=r"'neck' contains: neck.conv, neck.act, neck.down"):
        Recorder(ToyNet(), parse_taps('neck.fpn_convs.0'))
    with pytest.raises(TapError, match=r"neck \(ToyNeck\) has no 'get_targets\(\)'"):
        Recorder(ToyNet(), parse_taps('neck.get_targets()'))
    with pytest.raises(TapError, match=r"no module 'a.b'"):
        Recorder(ToyNet(), parse_taps('a.b.c()'))


@pytest.mark.parametrize('tap', ['parts', 'parts.forward()', 'parts@in[0]'])
def test_what_only_holds_layers_is_refused(tap):
    net = ToyNet()
    net.parts = nn.ModuleList([nn.Identity(), nn.Identity()])
    message = r"parts is a ModuleList, which is never called; tap .*: 'parts.0', 'parts.1'"
    with pytest.raises(TapError, match=message):
        Recorder(net, parse_taps(tap))
    assert Recorder(net, parse_taps('parts.1'))


def test_a_silent_tap_gives_the_hint_for_heads_entered_through_methods():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.decode_head = nn.Linear(1, 1)
            self.neck = nn.Linear(1, 1)

        def forward(self, x):
            return self.decode_head.forward(x)

    net = Net()
    with Recorder(net, parse_taps(['decode_head', 'decode_head.forward()', 'neck'])).record(
        torch.zeros(1)
    ) as side:
        net(torch.ones(1, 1))
    assert side['decode_head.forward()']
    with pytest.raises(TapError, match=r"'decode_head' .*try 'decode_head.forward\(\)'"):
        side['decode_head']
    with pytest.raises(TapError, match="'neck' of Net saw nothing in this step.*decode_head"):
        side['neck']


def test_what_an_inplace_activation_overwrites_was_kept():
    net = ToyNet(inplace=True)
    recorder = Recorder(net, parse_taps(['neck.conv', 'neck.act@in[0]', 'neck.act']))
    for _ in range(2):
        with recorder.record(pixels()) as side:
            net(pixels())
        before, after = side['neck.conv'][0], side['neck.act'][0]
        assert (before < 0).any() and torch.equal(before.relu(), after)
        assert torch.equal(side['neck.act@in[0]'][0], before)
    assert recorder.overwritten == {'neck.conv': True, 'neck.act@in[0]': True, 'neck.act': False}


def test_overwriting_that_starts_later_is_an_error():
    net = ToyNet()
    recorder = Recorder(net, parse_taps('neck.conv'))
    for inplace in (False, True):
        net.neck.act.inplace = inplace
        if inplace:
            with pytest.raises(TapError, match='overwritten in place'):
                with recorder.record(pixels()):
                    net(pixels())
        else:
            with recorder.record(pixels()):
                net(pixels())


def test_gradients_flow_through_every_way_of_recording():
    net = ToyNet()
    recorder = Recorder(net, parse_taps(['neck', 'head.fc@in[0]', 'forward()']))
    for _ in range(2):  # cloned in the first step, seen as they are from then on
        net.zero_grad()
        with recorder.record(pixels()) as side:
            net(pixels())
        sum(side[tap][0].sum() for tap in ('neck', 'head.fc@in[0]', 'forward()')).backward()
        assert net.backbone[0].weight.grad.abs().sum() > 0


def test_the_gradient_at_several_taps_does_not_run_through_the_network():
    """Reentrant checkpointing refuses torch.autograd.grad from one tap to the one before."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            x = self.a(x)
            return checkpoint(lambda y: self.b(y) * 1, x, use_reentrant=True)

    net = Net()
    recorder = Recorder(net, parse_taps(['a', 'forward()@in[0]']))
    for _ in range(2):
        with recorder.record(torch.zeros(1)) as side:
            out = net(torch.ones(1, 2, requires_grad=True))
        leaf = side.raw('a')[0][0]
        (grad,) = torch.autograd.grad(leaf.sum() * 2, leaf)
        assert grad.tolist() == [[2, 2]]
    out.sum().backward()


def test_a_frozen_student_tap_is_an_error():
    net = ToyNet()
    net.backbone.requires_grad_(False)
    side = record(net, 'backbone', 'neck')
    require_gradient(side, parse_taps('neck'))
    with pytest.raises(TapError, match="'backbone' carries no gradient.*frozen_stages"):
        require_gradient(side, parse_taps('backbone'))


def test_a_student_tap_inside_a_checkpointed_region_is_an_error():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return checkpoint(lambda y: self.b(self.a(y)), x, use_reentrant=True)

    net = Net()
    with Recorder(net, parse_taps('a')).record(torch.zeros(1)) as side:
        net(torch.ones(1, 2, requires_grad=True))
    with pytest.raises(TapError, match='with_cp'):
        require_gradient(side, parse_taps('a'))


def test_channels_of_a_file(tmp_path):
    file = tmp_path / 'channels.json'
    file.write_text('{"channels": [2, 0]}')
    text = f'neck[0]{{{file}}}'
    tap = Tap.parse(text)
    assert (tap.source, tap.index, tap.channels) == ('neck', 0, (2, 0)) and str(tap) == text
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    side = Side(nn.Module(), torch.zeros(2, 3, 12, 12), {'neck': [[x, x + 1]]})
    assert torch.equal(side[text][0], x[:, [2, 0]]) and side[text][0].requires_grad
    assert side['neck{}'][1] is side['neck'][1] and Tap.parse('neck{}').channels is None
    file.write_text('{"channels": [4]}')
    with pytest.raises(TapError, match='channel 4 is to be kept, but there are 4'):
        side[text]
    with pytest.raises(TapError, match=r"Tap 'neck\{none.json\}': there is no file none.json"):
        Tap.parse('neck{none.json}')
    with pytest.raises(TapError, match=f'{file.parent} is a folder, .*It has {file.name}'):
        Tap.parse(f'neck{{{file.parent}}}')
    for text in ('a.b()@scores{x.json}', 'neck{a}[0]', 'neck{{}}'):
        with pytest.raises(TapError, match='not an address'):
            Tap.parse(text)
