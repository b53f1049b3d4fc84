"""A gradient or a weight that is no number: the weights do not move, and the term is named."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from runner_toys import make
from torch import distributed, multiprocessing, nn

from mmkd.checks.finite import GradientWatch
from mmkd.distiller import Distiller
from mmkd.engine.finite_hook import FiniteHook
from mmkd.engine.optimizers import JointOptimWrapper
from mmkd.objective import Objective
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, class_labels, pixels

SGD = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))


def fine(x):
    return x


def broken(x):
    """Zero, with the slope NaN."""
    return (x * 0).sqrt()


class Term(Objective):
    """Each call takes the next of ``changes``, the last one for ever."""

    taps = 'neck[0]'
    needs_teacher = False

    def __init__(self, *changes, **kwargs):
        super().__init__(**kwargs)
        self.changes = list(changes)

    def forward(self, trace):
        change = self.changes.pop(0) if len(self.changes) > 1 else self.changes[0]
        return change(trace.student['neck[0]'][0].square().mean())


class Critic(Term):
    """Learns a factor with an optimiser of its own."""

    own_losses = ('loss_critic',)

    def __init__(self, *changes):
        super().__init__(*changes)
        self.optimizer = dict(type='SGD', lr=0.1)
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, trace):
        x = trace.student['neck[0]'][0].detach().mean()
        return dict(loss_critic=self.changes[0]((self.factor * x).square().mean()))


class Run:
    """A Distiller, its optimiser, and the hook that watches them."""

    def __init__(self, objectives, student=None, teacher=None, wrapper=SGD, preflight=False):
        torch.manual_seed(0)
        self.model = Distiller(student or ToyNet(), objectives, teacher, preflight=preflight)
        self.optim_wrapper = build_optim_wrapper(self.model, copy.deepcopy(wrapper))
        self.hook = FiniteHook()

    def start(self):
        self.hook.before_train(self)
        return self

    def step(self, data=None):
        inputs, samples = data or (pixels(2, (32, 32)), class_labels(torch.arange(2)))
        losses = self.model.loss(inputs, samples)
        self.optim_wrapper.update_params(self.model.parse_losses(losses)[0])

    def stops(self, message, data=None):
        before = copy.deepcopy(self.model.state_dict())
        with pytest.raises(FloatingPointError, match=message) as found:
            self.step(data)
        after = self.model.state_dict()
        assert all(torch.equal(after[k], before[k]) for k in before)
        return str(found.value)


def test_the_term_is_named_and_nothing_moves():
    run = Run(dict(good=Term(fine), bad=Term(fine, fine, broken))).start()
    run.step()
    run.step()
    text = run.stops(r'the gradient of kd\.bad\.loss is not finite, though the value is')
    assert 'kd.good' not in text and 'loss_cls' not in text


def test_the_student_s_own_losses_are_terms_too():
    class Student(ToyNet):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            out = super().forward(inputs, data_samples, mode)
            if mode == 'loss':
                out['loss_list'] = [out['loss_cls'], broken(out['loss_cls'])]
            return out

    text = (
        Run(dict(good=Term(fine)), Student()).start().stops('gradient of loss_list is not finite')
    )
    assert 'loss_cls' not in text


@pytest.mark.parametrize('clip', [dict(max_norm=1.0), dict(type='value', clip_value=1.0)])
def test_clipping_does_not_hide_it(clip):
    Run(dict(bad=Term(broken)), wrapper=SGD | dict(clip_grad=clip)).start().stops(r'kd\.bad\.loss')


class ByPixels(Term):
    """Broken on dark images."""

    def forward(self, trace):
        x = super().forward(trace)
        return broken(x) if trace.inputs.mean() < 0 else x


@pytest.mark.parametrize('order', [(1.0, -1.0), (-1.0, 1.0)])
def test_accumulated_gradients(order):
    """The batch at fault may be one whose gradients were there before."""
    run = Run(dict(bad=ByPixels(fine)), wrapper=SGD | dict(accumulative_counts=2)).start()
    one, two = (
        (torch.full((2, 3, 32, 32), value), class_labels(torch.arange(2))) for value in order
    )
    run.step(one)
    run.stops(r'gradient of kd\.bad\.loss is not', two)


def test_chance_is_rewound():
    """The second forward pass draws the numbers of the first."""
    drawn = []

    def by_chance(x):
        drawn.append(torch.rand(()).item())
        return broken(x)

    Run(dict(bad=Term(by_chance))).start().stops(r'kd\.bad\.loss')
    assert len(drawn) == 2 and drawn[0] == drawn[1]


class Steep(Term):
    """One activation, times nearly the largest number that float32 knows."""

    def forward(self, trace):
        return trace.student['neck[0]'][0].flatten()[0] * 3e38


def test_large_gradients_are_no_fault():
    """Their squares overflow, they themselves do not."""
    run = Run(dict(a=Steep(fine))).start()
    for conv, bias in ((run.model.backbone[0], 0.0), (run.model.neck.conv, 1e-3)):
        conv.weight.data[:], conv.bias.data[:] = 0, bias
    run.step()
    assert run.model.neck.conv.bias.abs().max() > 1e30


def test_no_term_alone():
    """The gradient of each is a number, their sum is none."""
    run = Run(dict(a=Steep(fine), b=Steep(fine))).start()
    for conv, bias in ((run.model.backbone[0], 0.0), (run.model.neck.conv, 1e-3)):
        conv.weight.data[:], conv.bias.data[:] = 0, bias
    run.stops('gradient of all losses together is not finite, that of each alone is')


def test_losses_wait_for_the_gradients_once_the_first_steps_are_done():
    nan = float('nan')
    run = Run(dict(bad=Term(*[fine] * 5, lambda x: x * nan)), preflight=True).start()
    for _ in range(5):
        run.step()
    run.stops(r'training stopped before the update: kd\.bad\.loss = nan\.')


def test_a_logged_value_counts_too():
    class Logs(Term):
        def forward(self, trace):
            return dict(loss=super().forward(trace), ratio=torch.tensor(float('inf')))

    Run(dict(it=Logs(fine))).start().stops(r'kd\.it\.ratio = inf\.')


def test_a_teacher_that_fails_later_is_blamed():
    class Imitates(Term):
        needs_teacher = True

        def forward(self, trace):
            return (trace.student['neck[0]'][0] - trace.teacher['neck[0]'][0]).square().mean()

    teacher = Teacher(ToyNet(), checkpoint='random')
    run = Run(dict(it=Imitates(fine)), teacher=teacher).start()
    run.step()
    teacher.model.neck.conv.weight.data[:] = float('nan')
    run.stops(r"^teacher 'teacher': its 'neck\[0\]', which objective 'it' compares, holds NaN")


def test_one_wait_for_the_device_a_step(monkeypatch):
    run = Run(dict(it=Term(fine), other=Term(fine)), preflight=True).start()
    for _ in range(6):
        run.step()
    waits = []
    for name in ('__bool__', '__float__', '__int__', 'item', 'tolist'):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda t, f=original, n=name: waits.append(n) or f(t)
        )
    run.step()
    assert waits == ['__bool__']


def test_nothing_is_kept_and_nothing_is_left():
    run = Run(dict(it=Term(fine))).start()
    watch = run.hook.watch
    run.step()
    assert not watch.batches
    with torch.no_grad():
        run.model.loss(pixels(), class_labels(torch.arange(2)))
    assert not watch.batches
    assert copy.deepcopy(run.model).guard.watch is None
    run.hook.after_train(run)
    assert run.model.guard.watch is None
    run.model.objectives['it'].changes = [broken]
    run.step()  # as any Runner but ours


def test_a_step_without_gradients():
    run = Run(dict(it=Term(fine))).start()
    run.optim_wrapper.optimizer.step()


# ------------------------------------------------------------------------------ several optimisers


def joint(run, scale=None):
    critic = run.model.objectives['critic']
    rest = [p for p in run.model.parameters() if p is not critic.factor]
    optimizer = torch.optim.SGD(rest, 0.1)
    student = CpuAmp(optimizer, scale) if scale else OptimWrapper(optimizer)
    run.optim_wrapper = JointOptimWrapper(student, dict(critic=critic))
    return run.start()


class CpuAmp(AmpOptimWrapper):
    """mmengine's wrapper with a scaler that works without a GPU."""

    def __init__(self, optimizer, scale):
        OptimWrapper.__init__(self, optimizer)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)


def test_a_critic_s_gradient_stops_the_student_too():
    run = joint(Run(dict(critic=Critic(broken))))
    run.stops(r'gradient of kd\.critic\.loss_critic is not finite')


def test_steps_that_loss_scaling_skips_are_no_fault():
    """Neither the student's nor the critic's, whose gradient overflows alone."""
    run = joint(Run(dict(critic=Critic(lambda x: x * 1e30))), scale=2.0**100)
    assert run.hook.watch is None
    before, student = copy.deepcopy(run.model.state_dict()), run.model.head.fc.weight.clone()
    run.step()
    key = 'objectives.critic.factor'
    assert torch.equal(run.model.state_dict()[key], before[key])
    assert not torch.equal(run.model.head.fc.weight, student)
    assert run.optim_wrapper.student.loss_scaler.get_scale() == 2.0**99


# -------------------------------------------------------------------------------------- the weights


class Spoil(Hook):
    """What an update may do even with a gradient that is finite."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 3:
            next(runner.model.parameters()).data[0] = float('nan')


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook')]])
def test_no_checkpoint_holds_them(tmp_path, hooks):
    runner = make(tmp_path, custom_hooks=[Spoil(), *hooks])
    with pytest.raises(FloatingPointError, match=r'is written at iteration 4: body\.0\.weight'):
        runner.train()
    assert [p.name for p in tmp_path.glob('*.p*') if p.suffix != '.py'] == ['epoch_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')


# -------------------------------------------------------------------------------------- two ranks


def one_rank(rank, folder):
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    model = Distiller(ToyNet(), dict(good=Term(fine), bad=ByPixels(fine)), preflight=False)
    ddp = MMDistributedDataParallel(model, broadcast_buffers=False)
    wrapper = build_optim_wrapper(ddp, copy.deepcopy(SGD))
    GradientWatch(model, [wrapper.optimizer])
    try:
        for dark in (False, rank == 1):  # in the second step, on one of the two
            image = torch.full((3, 32, 32), 10.0 if not dark else -10.0)
            data = dict(inputs=[image], data_samples=class_labels(torch.tensor([0])))
            ddp.train_step(data, wrapper)
    except FloatingPointError as error:
        torch.save(dict(text=str(error)), f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


def test_all_ranks_stop_alike(tmp_path):
    multiprocessing.start_processes(one_rank, (str(tmp_path),), 2, start_method='fork')
    texts = [torch.load(tmp_path / f'{rank}.pth')['text'] for rank in range(2)]
    assert texts[0] == texts[1]
    assert 'the gradient of kd.bad.loss is not finite' in texts[0]
