"""Networks that learn beside the student: pixels, losses, random streams, gradients, names."""

import copy

import pytest
import torch
from distiller_toys import Square, batch, toy
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkd.analysis.benchmark import benchmark_step
from mmkd.checks.guard import Guard
from mmkd.distiller import Distiller
from mmkd.engine.console.lines import plan_rows
from mmkd.engine.optimizers import build_optimizers
from mmkd.functional.logit_distances import soft_kl
from mmkd.methods.kd import KD
from mmkd.peers import Peers
from mmkd.plan.recording import record
from mmkd.schedule import Schedule
from mmkd.testing import (
    ToyNet,
    classification_batch,
    detection_batch,
    tiny_classifier,
    tiny_faster_rcnn,
)


def mutual(**peers):
    """Student and ``other`` teach each other."""
    torch.manual_seed(1)
    down, up = KD(teacher_name='other', tau=1), KD(learner='other', teacher_name='student', tau=1)
    peers = peers or dict(other=ToyNet(6, norm='BN', dropout=0.5))
    student = ToyNet(norm='BN', dropout=0.5)
    return toy(dict(down=down, up=up), {}, student, peers=peers).train()


def test_both_learn_from_each_other_and_each_term_reaches_its_learner_alone():
    model = mutual()
    losses = model.loss(*batch())
    assert list(losses) == ['loss_cls', 'peer.other.loss_cls', 'kd.down.loss', 'kd.up.loss']
    for key, mine in (('down', 'student'), ('up', 'other'), ('peer.other.loss_cls', 'other')):
        loss = losses.get(f'kd.{key}.loss', losses.get(key))
        networks = dict(student=model.student, other=model.peers['other'])
        for name, network in networks.items():
            grads = torch.autograd.grad(
                loss, list(network.parameters()), retain_graph=True, allow_unused=True
            )
            assert any(g is not None for g in grads) == (name == mine), (key, name)


def test_the_divergences_are_those_of_the_sheet():
    """z1 = (2, 0, 0) and z2 = (0, 1, 0) at tau 1, and the gradient p1 - p2 of the first."""
    z = dict(
        student=torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True),
        other=torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True),
        third=torch.tensor([[0.0, 0.0, 3.0]], dtype=torch.float64, requires_grad=True),
    )

    def of(learner, teacher):
        return soft_kl(z[learner], z[teacher].detach(), 1.0).mean()

    assert float(of('student', 'other')) == pytest.approx(0.840334, abs=1e-6)
    assert float(of('other', 'student')) == pytest.approx(0.779365, abs=1e-6)
    (gradient,) = torch.autograd.grad(of('student', 'other'), z['student'])
    assert gradient[0].tolist() == pytest.approx([0.575044, -0.46961, -0.105435], abs=1e-6)
    both = of('student', 'other') + of('student', 'third')
    assert float(both) == pytest.approx(2.622728, abs=1e-6)
    assert float(both / 2) == pytest.approx(1.311364, abs=1e-6)
    mean = (z['other'].softmax(1) + z['third'].softmax(1)).detach() / 2
    single = (mean * (mean.log() - z['student'].log_softmax(1))).sum()
    assert float(single) == pytest.approx(1.030957, abs=1e-6), 'which is another loss'


def test_what_the_student_computes_and_draws_is_untouched():
    torch.manual_seed(0)
    plain = ToyNet(norm='BN', dropout=0.5).train()
    model = mutual()
    model.student.load_state_dict(plain.state_dict())
    for _ in range(3):
        torch.manual_seed(5)
        wanted = plain(*batch(), mode='loss')['loss_cls']
        after = torch.get_rng_state()
        torch.manual_seed(5)
        found = model.loss(*batch())['loss_cls']
        assert torch.equal(found, wanted) and torch.equal(torch.get_rng_state(), after)
    for one, other in zip(plain.buffers(), model.student.buffers(), strict=True):
        assert torch.equal(one, other)


def test_a_peer_draws_from_a_stream_of_its_own_that_moves_on():
    model = mutual()
    values = [float(model.loss(*batch())['peer.other.loss_cls'].detach()) for _ in range(3)]
    assert len(set(values)) == 3, 'dropout of the peer'
    model = mutual()
    torch.manual_seed(77)
    again = [float(model.loss(*batch())['peer.other.loss_cls'].detach()) for _ in range(3)]
    assert again == values, 'whatever the process draws'


def test_two_peers_of_one_kind_start_differently():
    peers = Peers(dict(a=dict(type='ToyNet'), b=dict(type='ToyNet')))
    weights = [dict(peer.named_parameters())['head.fc.weight'] for peer in peers.values()]
    assert not torch.equal(*weights)
    before = torch.get_rng_state()
    peers.init_weights()
    assert torch.equal(torch.get_rng_state(), before)
    built = nn.Linear(2, 2)
    assert Peers(dict(a=None, b=built))['b'] is built


def test_a_peer_sees_the_pixels_in_its_own_normalisation():
    scaled = ToyNet(data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3))
    model = mutual(other=scaled)
    traces = record(model, *batch())
    inputs = batch()[0]
    assert torch.allclose(traces['up'].inputs, (inputs - 1) / 2)
    assert traces['up'].student.inputs is traces['up'].inputs
    assert torch.equal(traces['down'].inputs, inputs)
    assert torch.allclose(traces['down'].teacher.inputs, (inputs - 1) / 2)


def test_keys_children_and_the_plain_student():
    model = mutual()
    own = set(ToyNet(norm='BN').state_dict())
    assert {k for k in model.state_dict() if not k.startswith('peers.')} == own
    assert {k for k in model.state_dict()} - own == {
        f'peers.other.{k}' for k in ToyNet(6, norm='BN').state_dict()
    }
    assert 'peers' not in dict(toy().named_children()) and len(toy().peers) == 0
    for mode in (False, True):
        model.train(mode)
        assert all(m.training == mode for m in model.peers.modules())
    averaged = ExponentialMovingAverage(model)
    averaged.update_parameters(model)
    twin = copy.deepcopy(model)
    assert twin.plan.peers['other'] is twin.peers['other'] is not model.peers['other']
    assert twin.peers.recorders['other'].model is twin.peers['other']
    assert float(twin.loss(*batch())['kd.up.loss'].detach()) > 0


def test_each_has_an_optimiser_of_its_own_with_its_own_clipping():
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=dict(max_norm=1e-3))
    model = mutual()
    wrapper = build_optimizers(model, lambda: build_optim_wrapper(model, dict(config)), config)
    assert list(wrapper.keys()) == ['student', 'peer.other']
    known = {k: {id(p) for g in w.param_groups for p in g['params']} for k, w in wrapper.items()}
    assert known['student'] == {id(p) for p in model.student.parameters()}
    assert known['peer.other'] == {id(p) for p in model.peers.parameters()}
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    wrapper.update_params(model.parse_losses(model.loss(*batch()))[0])
    for start in ('peers.', ''):
        moved = [
            (p - before[k]).square().sum()
            for k, p in model.named_parameters()
            if k.startswith('peers.') == bool(start)
        ]
        assert float(sum(moved).sqrt().detach()) == pytest.approx(1e-4, rel=1e-3), start
    assert {k for k in wrapper.get_lr()} == {'lr', 'peer.other.lr'}


def test_a_peer_trains_as_it_would_alone():
    torch.manual_seed(0)
    config = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    model = toy(dict(it=KD(learner='other', weight=0)), None, ToyNet(), peers=dict(other=ToyNet(6)))
    alone = copy.deepcopy(model.peers['other'])
    joint = build_optimizers(model, lambda: build_optim_wrapper(model, dict(config)), config)
    single = build_optim_wrapper(alone, dict(config))
    for seed in range(3):
        inputs, samples = classification_batch(4, seed=seed)
        joint.update_params(model.parse_losses(model.loss(inputs, samples))[0])
        single.update_params(alone.parse_losses(alone(inputs, samples, mode='loss'))[0])
    for one, other in zip(model.peers['other'].parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_stage_peers_judge_each_others_regions():
    torch.manual_seed(0)
    objectives = dict(
        down=dict(type='mmkd.KD', teacher_name='other', tau=1),
        up=dict(type='mmkd.KD', learner='other', teacher_name='student', tau=1),
    )
    peers = dict(other=tiny_faster_rcnn(8, norm='BN'))
    model = Distiller(tiny_faster_rcnn(4), objectives, peers=peers).train()
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    losses = model(*detection_batch(), mode='loss')
    assert all(float(losses[f'kd.{name}.loss'].detach()) > 0 for name in ('down', 'up'))
    moved = {k.split('.')[0] for k, v in model.named_buffers() if not torch.equal(v, buffers[k])}
    assert moved == {'backbone', 'peers'}, 'each by its own forward pass'
    counts = {int(v) for k, v in model.named_buffers() if k.endswith('num_batches_tracked')}
    assert counts == {1}, 'which was the only one'


def test_a_critic_style_guard_compares_each_term_with_its_learners_own_losses(log):
    model = mutual()
    model.guard = Guard(steps=1)
    model.objectives['up'].weight = Schedule(1e6)
    model.loss(*batch())
    text = log.text
    assert 'kd.up.loss = ' in text and 'more than 100 times the task loss' in text
    assert 'kd.down.loss = ' not in text.replace('is live: kd.down', '')


def test_the_plan_and_the_console_list_peers():
    model = mutual()
    text = str(model.plan)
    assert 'peer other: ToyNet, 0.00 M parameters, learns too' in text
    assert '  other head.fc: 3' in text and '  student, as teacher head.fc: 3' in text
    rows = dict(plan_rows(model))
    assert rows['other'].endswith('learns too')
    assert 'other: head.fc <- student, as teacher: head.fc' in rows['up']
    up = Square(learner='other', teacher_name='student')
    plan = toy(dict(up=up), {}, peers=dict(other=ToyNet(6))).plan
    assert 'other level 0 <- teacher level 0: ' in str(plan)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(peers=[ToyNet()]), TypeError, 'peers must be a mapping'),
        (dict(peers={'my.peer': ToyNet()}), ValueError, "peer name 'my.peer': dots are path"),
        (dict(peers=dict(loss=ToyNet())), ValueError, "peer name 'loss'"),
        (dict(peers=dict(train=ToyNet())), ValueError, "peer name 'train'"),
        (dict(peers=dict(teacher=ToyNet())), ValueError, "two networks are called 'teacher'"),
        (dict(peers=dict(student=ToyNet())), ValueError, "two networks are called 'student'"),
        (dict(peers=dict(Student=ToyNet())), ValueError, 'two networks .* in any case of letters'),
        (dict(peers=dict(a=ToyNet(), A=ToyNet(6))), ValueError, "two networks are called 'a'"),
        (dict(peers={1: ToyNet()}), ValueError, 'peer name 1: it must be a text'),
        (dict(peers=dict(other=3)), TypeError, "peer 'other': a model must be .* found 3"),
        (
            dict(peers=dict(other=dict(config='a.py', checkpoint='a.pth'))),
            TypeError,
            r"peer 'other': a model must be .* found dict\(config=…, checkpoint=…\)\. It starts",
        ),
        (
            dict(peers=dict(other=ToyNet()), objectives=dict(it=Square(teacher_name='oter'))),
            ValueError,
            "asks for teacher_name='oter'. Teachers: teacher. Peers: other. Did you mean 'other'",
        ),
        (
            dict(peers=dict(other=ToyNet()), objectives=dict(it=Square(learner='others'))),
            ValueError,
            "asks for learner='others'. Networks that learn: student, other. Did you mean 'other'",
        ),
        (
            dict(
                peers=dict(other=ToyNet()),
                objectives=dict(it=Square(learner='other', teacher_name='other')),
            ),
            ValueError,
            'compares other with itself at neck',
        ),
        (
            dict(
                peers=dict(other=ToyNet()),
                objectives=dict(
                    it=Square(
                        learner='other', teacher_name='student', teacher='head.fc', adapt=None
                    )
                ),
            ),
            ValueError,
            r"\(The student is here the peer 'other', the teacher 'student'\.\)",
        ),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        toy(**options)


def test_the_floor_of_a_benchmark_trains_the_peers():
    model = dict(
        type='mmkd.Distiller',
        student=tiny_classifier(4),
        peers=dict(other=tiny_classifier(4)),
        objectives=dict(down=dict(type='mmkd.KD', teacher_name='other')),
    )
    costs = benchmark_step(dict(it=Config(dict(model=model))), (32, 32), batch=2, rounds=1)
    assert list(costs) == ['plain', 'floor (peer other)', 'it']


def test_an_empty_mapping_is_reported(log):
    assert not Peers(None) and not Peers(dict(gone=None)) and not log.text
    assert not Peers({})
    assert 'peers={} is empty: nobody trains beside the student' in log.text
