"""A gradient or a weight that is no number: the weights do not move, and the term is named."""

import copy

import pytest
import torch
from finite_toys import SGD, Run, Term, broken, fine
from launches import leave
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import distributed, multiprocessing

from mmkd.checks.finite import GradientWatch, check_losses
from mmkd.distiller import Distiller
from mmkd.teacher import Teacher
from mmkd.testing import ToyNet, class_labels


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


def test_levels_of_a_loss_are_named_once():
    named = [('loss_cls', torch.tensor(float('nan')))] * 4
    with pytest.raises(FloatingPointError, match=r'update: loss_cls = nan\. The weights'):
        check_losses(None, named, {})


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


def test_a_step_without_gradients():
    run = Run(dict(it=Term(fine))).start()
    run.optim_wrapper.optimizer.step()


# -------------------------------------------------------------------------------------- two ranks


def one_rank(rank, folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)  # a network without a living ReLU would keep NaN from the weights
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
    leave()


def test_all_ranks_stop_alike(tmp_path):
    multiprocessing.start_processes(one_rank, (str(tmp_path),), 2, start_method='fork')
    texts = [torch.load(tmp_path / f'{rank}.pth')['text'] for rank in range(2)]
    assert texts[0] == texts[1]
    assert 'the gradient of kd.bad.loss is not finite' in texts[0]
