"""A wrapper that nobody notices: writes, overrides, hooks and files reach the student."""

import copy

import pytest
import torch
from mmdet.engine.hooks import SetEpochInfoHook, YOLOXModeSwitchHook
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mmkd.distiller import Distiller
from mmkd.methods.cwd import CWD
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, classification_batch, tiny_faster_rcnn, tiny_retinanet


def wrapped(student, weight=1.0):
    objectives = dict(cwd=CWD(student='neck', tau=1, weight=weight))
    return Distiller(student, objectives, Teacher(ToyNet(6), checkpoint='random'), preflight=False)


def seeded(kind=ToyNet, **options):
    torch.manual_seed(0)
    return kind(**options)


@pytest.fixture
def distiller():
    return wrapped(seeded())


# ---------------------------------------------------------------------------------------- writes


def test_what_is_written_reaches_the_student(distiller):
    distiller.share = 0.5
    assert distiller.student.share == distiller.share == 0.5 and 'share' not in vars(distiller)
    del distiller.share
    assert not hasattr(distiller, 'share') and not hasattr(distiller.student, 'share')
    with pytest.raises(AttributeError, match='share'):
        del distiller.share


def test_children_parameters_and_buffers_are_those_of_the_student(distiller):
    student = distiller.student
    distiller.neck = nn.Identity()
    distiller.add_module('extra', nn.Linear(1, 2))
    distiller.scale = nn.Parameter(torch.ones(1))
    distiller.register_buffer('count', torch.zeros(1), persistent=False)
    del distiller.head
    for name in ('neck', 'extra', 'scale', 'count'):
        assert getattr(student, name) is getattr(distiller, name)
    student.late = nn.Linear(2, 1)  # and the other way round
    assert distiller.late is student.late
    own = {k: v for k, v in distiller.state_dict().items() if not k.startswith('objectives.')}
    assert list(own) == list(student.state_dict())
    assert 'scale' in own and 'late.weight' in own and 'count' not in own
    assert [n for n, _ in distiller.named_children()][-1] == 'objectives'
    assert {n for n, _ in student.named_children()} == {
        n for n, _ in distiller.named_children() if n != 'objectives'
    }


def test_a_converted_child_is_converted_for_both(distiller):
    distiller.norm = nn.SyncBatchNorm(4)
    revert_sync_batchnorm(distiller)
    assert distiller.norm is distiller.student.norm
    assert not isinstance(distiller.student.norm, nn.SyncBatchNorm)


def test_training_is_one_flag(distiller):
    distiller.eval()
    assert not distiller.training and not distiller.student.training
    distiller.training = True
    assert distiller.student.training and not distiller.neck.training


def test_a_copy_is_independent(distiller):
    twin = copy.deepcopy(distiller)
    twin.share, twin.neck = 1, nn.Identity()
    assert twin.student.share == 1 and isinstance(twin.student.neck, nn.Identity)
    assert not hasattr(distiller, 'share') and distiller.neck is distiller.student.neck
    assert not isinstance(distiller.neck, nn.Identity)


@pytest.mark.parametrize('name', ['objectives', 'student', 'plan'])
def test_a_name_that_the_distiller_needs_is_refused(name):
    student = ToyNet()
    setattr(student, name, nn.Linear(1, 1))
    with pytest.raises(ValueError, match=f'ToyNet has an attribute {name!r}'):
        wrapped(student)


# ----------------------------------------------------------------------------------------- hooks


class Runner:
    """As much of a Runner as hooks ask for."""

    epoch, max_epochs = 3, 4

    def __init__(self, model):
        self.model = model


def test_hooks_that_call_the_student_or_change_its_parts():
    class Yolox(ToyNet):
        def set_epoch(self, epoch):
            self.epoch = epoch

    distiller = wrapped(Yolox())
    SetEpochInfoHook().before_train_epoch(Runner(distiller))
    assert distiller.student.epoch == distiller.epoch == 3
    detector = Distiller(
        tiny_retinanet(4),
        dict(f=dict(type='mmkd.FGFI')),
        dict(config=tiny_retinanet(4), checkpoint='random'),
    )
    runner = Runner(detector)
    runner.train_loop = runner.train_dataloader = runner.logger = runner
    runner.dataset = runner.info = lambda *_: None
    runner.persistent_workers = False
    runner.dataset.update_skip_type_keys = lambda keys: None
    YOLOXModeSwitchHook(num_last_epochs=1).before_train_epoch(runner)
    assert detector.student.bbox_head.use_l1 is True


def test_forward_hooks_fire_once_a_pass(distiller):
    seen = []
    distiller.register_forward_hook(lambda module, args, out: seen.append((module, out)))
    inputs, samples = classification_batch(2)
    distiller.eval()
    data = dict(inputs=list(inputs), data_samples=samples)
    step(distiller, data)
    distiller.val_step(data)
    distiller(inputs, samples, mode='tensor')
    assert [module for module, _ in seen] == [distiller.student] * 3
    assert 'loss_cls' in seen[0][1]


@pytest.mark.parametrize('name', ['forward', 'loss', 'parse_losses', 'train_step', 'val_step'])
def test_a_hook_may_wrap_a_method(distiller, name):
    """Of this model; a plain one has them too, but for ``loss``."""
    calls = []
    original = getattr(distiller, name)

    def counted(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    setattr(distiller, name, counted)
    inputs, samples = classification_batch(2)
    data = dict(inputs=list(inputs), data_samples=samples)
    step(distiller, data)
    distiller.val_step(data)
    assert calls == [name] * (2 if name == 'forward' else 1)


# ------------------------------------------------------------------------------------- overrides


class TwoOptimisers(ToyNet):
    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        loss, log = self.parse_losses(self._run_forward(data, mode='loss'))
        for part in ('body', 'head'):
            optim_wrapper[part].zero_grad()
        loss.backward()
        for part in ('body', 'head'):
            optim_wrapper[part].step()
        return dict(log, steps=loss.new_tensor(2.0))


class OwnSum(ToyNet):
    def parse_losses(self, losses):
        loss, log = super().parse_losses(losses)
        return 3 * loss, dict(log, thrice=3 * loss)


class OwnForward(ToyNet):
    def _run_forward(self, data, mode):
        return self(data['inputs'] * 2, data['data_samples'], mode=mode)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = super().forward(inputs + 1, data_samples, mode)
        return {k: 2 * v for k, v in out.items()} if mode == 'loss' else out

    def val_step(self, data):
        return ['mine', super().val_step(data)]


class OwnLoss(ToyNet):
    """Calls ``loss`` itself, as mmdet's and mmseg's models have it."""

    def loss(self, batch_inputs, batch_data_samples):
        return super().forward(batch_inputs, batch_data_samples, mode='loss')

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        loss, log = self.parse_losses(
            self.loss(batch_data_samples=data['data_samples'], batch_inputs=data['inputs'])
        )
        optim_wrapper.update_params(loss)
        return log


class Criterion(ToyNet):
    """Its ``loss`` is no forward pass; its losses come from a pass in another mode as well."""

    def loss(self, logits, target):
        return nn.functional.cross_entropy(logits, target)

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        logits = self(**data, mode='tensor')
        losses = self._run_forward(data, mode='loss')
        losses['loss_more'] = self.loss(logits, torch.zeros(len(logits)).long())
        loss, log = self.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return log


STUDENTS = (ToyNet, TwoOptimisers, OwnSum, OwnForward, OwnLoss, Criterion)


def optimisers(model):
    def one(*parts):
        parameters = [p for part in parts for p in part.parameters()]
        return OptimWrapper(torch.optim.SGD(parameters, lr=0.1, momentum=0.9))

    if isinstance(getattr(model, 'student', model), TwoOptimisers):
        return OptimWrapperDict(body=one(model.backbone, model.neck), head=one(model.head))
    return one(model)


def step(model, data, wrapper=None):
    return model.train_step(copy.deepcopy(data), wrapper or optimisers(model))


def run(model, steps=3):
    """What training logs, the weights, and what validation gives afterwards."""
    wrapper, logs = optimisers(model), []
    for seed in range(steps):
        inputs, samples = classification_batch(4, seed=seed)
        data = dict(inputs=list(inputs), data_samples=samples)
        log = step(model, data, wrapper)
        logs.append({k: float(torch.as_tensor(v).detach()) for k, v in log.items()})
    model.eval()
    return logs, model.state_dict(), model.val_step(data), model.test_step(data)


@pytest.mark.parametrize('kind', STUDENTS)
def test_weight_zero_is_training_without_the_wrapper(kind):
    logs, weights, *outputs = run(seeded(kind))
    found_logs, found, *found_outputs = run(wrapped(seeded(kind), weight=0))
    assert found_logs == logs
    own = {k: v for k, v in found.items() if not k.startswith('objectives.')}
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[k], weights[k]) for k in weights)
    assert flat(found_outputs) == flat(outputs)


def flat(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [flat(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('kind', STUDENTS)
def test_objectives_take_part_in_a_step_of_the_students_own(kind):
    plain = run(seeded(kind))[0]
    logs = run(wrapped(seeded(kind)))[0]
    assert all(log['kd.cwd.loss'] > 0 for log in logs)
    assert (
        logs[0]['loss_cls'] == plain[0]['loss_cls'] and logs[2]['loss_cls'] != plain[2]['loss_cls']
    )
    if kind is OwnSum:
        total = sum(v for k, v in logs[0].items() if k.rpartition('.')[2] in ('loss_cls', 'loss'))
        assert logs[0]['thrice'] == pytest.approx(3 * logs[0]['loss']), total
    assert vars(wrapped(seeded(kind)).student).keys() == vars(seeded(kind)).keys()


def test_a_step_without_a_forward_pass_for_losses_is_refused():
    class Apart(ToyNet):
        def train_step(self, data, optim_wrapper):
            data = self.data_preprocessor(data, True)
            optim_wrapper.update_params(self.head(self.extract_feat(data['inputs'])).mean())
            return {}

    assert run(seeded(Apart))[0] == run(wrapped(seeded(Apart), weight=0))[0]
    with pytest.raises(RuntimeError, match='Apart.train_step computes its losses without'):
        run(wrapped(seeded(Apart)))


def test_nothing_stays_on_the_student_after_an_error(distiller):
    distiller.neck.forward = None
    inputs, samples = classification_batch(2)
    with pytest.raises(TypeError):
        step(distiller, dict(inputs=list(inputs), data_samples=samples))
    assert 'forward' not in vars(distiller.student) and distiller._inner is None


# ----------------------------------------------------------------------------------------- files


def test_keys_are_renamed_as_the_student_renames_them():
    """mmdet lets a two-stage detector begin with a single-stage one's head."""
    student = build_model(tiny_faster_rcnn(4))
    teacher = dict(config=tiny_faster_rcnn(4), checkpoint='random')
    distiller = Distiller(student, dict(f=dict(type='mmkd.FGFI')), teacher)
    state = {
        k.replace('rpn_head.', 'bbox_head.'): v + 1
        for k, v in distiller.state_dict().items()
        if k.startswith('rpn_head.')
    }
    result = distiller.load_state_dict(dict(state), strict=False)
    assert not result.unexpected_keys
    weight = distiller.rpn_head.rpn_conv.weight
    assert torch.equal(weight, state['bbox_head.rpn_conv.weight'])


def test_a_state_fits_strictly_and_its_surprises_are_named(distiller):
    state = distiller.state_dict()
    other = wrapped(ToyNet())
    other.load_state_dict(state)
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())
    result = other.load_state_dict({**state, 'odd': 1, 'objectives.odd.x': 1}, strict=False)
    assert sorted(result.unexpected_keys) == ['objectives.odd.x', 'odd']


def test_hooks_on_the_state_are_the_students(distiller):
    distiller.student._register_state_dict_hook(lambda module, state, *_: state.update(more=1))
    assert distiller.state_dict()['more'] == 1
