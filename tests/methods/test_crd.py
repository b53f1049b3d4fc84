"""CRD against worked numbers, its closed form and a literal step."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.structures import BaseDataElement

from mmkd.checks.preflight import PreflightHook
from mmkd.distiller import Distiller
from mmkd.methods.crd import CRD, contrastive_error
from mmkd.teacher import Teacher, build_model
from mmkd.testing import class_labels, classification_batch, make_trace, ready, tiny_classifier

LABELS = torch.tensor([0, 1, 0, 2])


def trace_of(b=4, seed=0, labels=LABELS, progress=0.0, samples=None):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.rand(b, d, generator=generator) for d in (4, 6))
    samples = class_labels(labels[:b]) if samples is None else samples
    return make_trace(
        {'x': student.requires_grad_()}, {'x': teacher}, samples=samples, progress=progress
    )


def objective_of(trace, seed=0, **options):
    torch.manual_seed(seed)
    return ready(CRD('x', **{**dict(size=10, negatives=6, dim=3), **options}), trace)


def test_worked_number():
    positive = torch.tensor([0.02], dtype=torch.float64).log()
    negatives = torch.tensor([[0.001, 0.002, 0.0005]], dtype=torch.float64).log()
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert float(contrastive_error(positive, negatives, valid, 1000)) == pytest.approx(
        1.092498, abs=1e-6
    )
    valid[0, 2] = False  # the other two speak for it
    noise, eps = 3 / 1000, 1e-7
    terms = [-math.log(noise / (p + noise + eps)) for p in (0.001, 0.002)]
    own = -math.log(0.02 / (0.02 + noise + eps))
    assert float(contrastive_error(positive, negatives, valid, 1000)) == pytest.approx(
        own + 1.5 * sum(terms)
    )


def test_equal_scores_have_a_closed_form():
    k, size = 16384, 50_000
    scores = torch.full((2, k), -math.log(size), dtype=torch.float64)
    found = contrastive_error(scores[:, 0], scores, scores < 0, size)
    wanted = k * math.log1p(1 / k) + math.log(1 + k)
    assert wanted == pytest.approx(10.7041, abs=1e-4)
    assert float(found) == pytest.approx(wanted + k * 1e-7 * size / k, abs=1e-4)  # of epsilon
    huge = torch.full((1, 3), 500.0)  # exp(500) is beyond float32
    assert contrastive_error(huge[:, 0], huge, huge > 0, 10).isfinite()


def test_a_step_is_what_loops_give():
    trace = trace_of()
    objective = objective_of(trace)
    objective.classes[:5] = torch.tensor([0, 1, 0, 2, 0])
    before = {k: v.clone() for k, v in objective.named_buffers()}
    losses = objective(trace)
    n, k, tau = 10, 6, 0.07
    chosen = objective.draw(torch.arange(4), 0)
    embeds = {'loss_student': objective.embed, 'loss_teacher': objective.embed_target}
    rows = {'loss_student': trace.student['x'][0], 'loss_teacher': trace.teacher['x'][0]}
    for side, key in enumerate(losses):
        view = embeds[key](rows[key]).detach().double()
        view = view / view.norm(dim=1, keepdim=True)
        memory = before['memory'][1 - side].double()

        def score(i, j, view=view, memory=memory):
            return math.exp(float(view[i] @ memory[j]) / tau)

        every = [score(i, j) for i in range(4) for j in [i, *chosen[i].tolist()]]
        z, total = n * sum(every) / len(every), 0.0
        for i in range(4):
            positive = score(i, i) / z
            total -= math.log(positive / (positive + k / n + 1e-7))
            others = [j for j in chosen[i].tolist() if j != i and before['classes'][j] != LABELS[i]]
            for j in others:
                share = k / n / (score(i, j) / z + k / n + 1e-7)
                total -= math.log(share) * k / len(others)
        assert float(losses[key].detach()) == pytest.approx(total / 4, rel=1e-4)
        assert float(objective.log_z[side]) == pytest.approx(math.log(z), rel=1e-5)
        moved = 0.5 * before['memory'][side][:4] + 0.5 * view.float()
        remembered = objective.state_dict()['memory']
        torch.testing.assert_close(remembered[side][:4], moved / moved.norm(dim=1, keepdim=True))
    assert torch.equal(remembered[:, 4:], before['memory'][:, 4:])
    assert objective.classes.tolist() == [0, 1, 0, 2, 0, -1, -1, -1, -1, -1]


def test_what_is_learnt():
    trace = trace_of()
    objective = objective_of(trace)
    before = objective.memory.clone()
    losses = objective(trace)
    sum(losses.values()).backward()
    assert torch.equal(objective.memory, before)  # no copy: it moves before the next step
    place = objective.memory.data_ptr()
    assert not torch.equal(objective.state_dict()['memory'], before)
    assert objective.memory.data_ptr() == place
    assert objective.embed.weight.grad.any() and objective.embed_target.weight.grad.any()
    assert trace.student['x'][0].grad.any()


def test_two_passes_before_one_backward():
    objective = objective_of(trace_of())
    place = objective.memory.data_ptr()
    passes = [trace_of(seed=seed) for seed in (0, 1)]
    losses = [sum(objective(trace).values()) for trace in passes]
    remembered = objective.state_dict()['memory'].clone()
    sum(losses).backward()
    both = [trace.student['x'][0].grad.clone() for trace in passes]

    again = objective_of(trace_of())
    passes = [trace_of(seed=seed) for seed in (0, 1)]
    for trace in passes:
        sum(again(trace).values()).backward()
    assert place != objective.memory.data_ptr() and not again.awaited
    assert torch.equal(again.state_dict()['memory'], remembered)
    for trace, found in zip(passes, both, strict=True):
        torch.testing.assert_close(trace.student['x'][0].grad, found)


def test_z_is_that_of_the_first_batch():
    objective = objective_of(trace_of())
    assert not objective.log_z.isfinite().any()
    objective.eval()(trace_of())
    assert not objective.log_z.isfinite().any() and (objective.classes == -1).all()
    objective.train()(trace_of())
    first = objective.log_z.clone()
    objective(trace_of(seed=1))
    assert torch.equal(objective.log_z, first) and first.isfinite().all()


def test_training_lowers_it():
    objective = objective_of(trace_of(), size=4, negatives=8)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    losses = []
    for step in range(60):
        loss = sum(objective(trace_of(progress=step / 60)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_resuming_goes_on_with_the_same_numbers():
    first = objective_of(trace_of())
    first(trace_of())
    state = copy.deepcopy(first.state_dict())
    other = objective_of(trace_of(), seed=5)
    other.load_state_dict(state)
    goes, went = (objective(trace_of(seed=2, progress=0.5)) for objective in (first, other))
    assert all(torch.equal(value, went[key]) for key, value in goes.items())
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in first.state_dict().items())
    assert {'memory', 'classes', 'log_z'} <= set(state)


def test_an_average_of_weights_keeps_the_memory():
    torch.manual_seed(0)
    teacher = Teacher(build_model(tiny_classifier(8)), checkpoint='random')
    crd = CRD(size=10, negatives=6, dim=3)
    distiller = Distiller(build_model(tiny_classifier(4)), dict(crd=crd), teacher, preflight=False)
    average = ExponentialMovingAverage(distiller)
    own = average.module.objectives['crd']
    for seed in range(2):
        distiller(*classification_batch(4, seed=seed), mode='loss')
        average.update_parameters(distiller)
        assert torch.equal(own.memory, crd.memory) and torch.equal(own.log_z, crd.log_z)


def test_negatives_depend_on_seed_iteration_and_image():
    objective = CRD('x', size=1000, negatives=50, dim=2)
    drawn = objective.draw(torch.tensor([3, 7]), 5)
    assert torch.equal(objective.draw(torch.tensor([7]), 5)[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(objective.draw(torch.tensor([3]), 6)[0], drawn[0])
    other = CRD('x', size=1000, negatives=50, dim=2, seed=1)
    assert not torch.equal(other.draw(torch.tensor([3]), 5)[0], drawn[0])
    assert int(drawn.min()) >= 0 and int(drawn.max()) < 1000


def test_no_image_is_a_negative_of_its_own_class():
    trace = trace_of(labels=torch.zeros(4).long())
    objective = objective_of(trace, size=4, tau=0.5)
    objective.classes.zero_()
    objective.log_z.zero_()
    losses = objective(trace)  # nothing but the positives is left
    again = objective_of(trace, size=4, tau=0.5)
    view = torch.nn.functional.normalize(again.embed(trace.student['x'][0]))
    positive = ((view * again.memory[1]).sum(1) / 0.5).exp()
    wanted = -(positive / (positive + 6 / 4)).log().mean()
    torch.testing.assert_close(losses['loss_student'], wanted)


def test_an_image_seen_twice_counts_by_its_mean():
    samples = [BaseDataElement(metainfo=dict(sample_idx=2)) for _ in range(2)]
    for sample in samples:
        sample.gt_label = torch.tensor([1])
    trace = trace_of(2, samples=samples)
    objective = objective_of(trace, momentum=0.0)
    objective(trace)
    views = torch.nn.functional.normalize(objective.embed(trace.student['x'][0])).detach()
    wanted = torch.nn.functional.normalize(views.mean(0), dim=0)
    torch.testing.assert_close(objective.state_dict()['memory'][0, 2], wanted)
    keep = objective_of(trace, momentum=1.0)
    direction = torch.nn.functional.normalize(keep.memory[0, 2].clone(), dim=0)
    keep(trace)
    torch.testing.assert_close(keep.state_dict()['memory'][0, 2], direction)


class Images(BaseDataset):
    def __init__(self, count):
        self.count = count
        super().__init__()

    def load_data_list(self):
        return [dict(number=i) for i in range(self.count)]


def test_the_memory_is_as_large_as_the_training_set():
    objective = CRD('x', size=10, negatives=2, dim=2)
    objective.check_dataset(Images(10))
    objective.check_dataset(RepeatDataset(Images(10), 3))
    with pytest.raises(ValueError, match='remembers 10 images.*has 12: set size=12'):
        objective.check_dataset(Images(12))
    parts = ConcatDataset([Images(5), Images(5)])
    with pytest.raises(ValueError, match='ConcatDataset share numbers'):
        objective.check_dataset(parts)
    trace = trace_of()
    with pytest.raises(ValueError, match='images 0 to 2.*number 3'):
        objective_of(trace, size=3)(trace)


def test_the_training_set_is_looked_at_before_the_first_step():
    objective = CRD(size=10, negatives=2, dim=2)
    student, teacher = (build_model(tiny_classifier(width)) for width in (4, 8))
    model = Distiller(student, dict(crd=objective), Teacher(teacher, checkpoint='random'))
    runner = SimpleNamespace(
        model=model,
        logger=SimpleNamespace(info=print),
        optim_wrapper=build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1))),
        train_dataloader=SimpleNamespace(dataset=Images(12)),
        val_loop=None,
        iter=0,
        max_iters=10,
    )
    with pytest.raises(ValueError, match='set size=12'):
        PreflightHook().before_train(runner)
    runner.train_dataloader.dataset = Images(10)
    PreflightHook().before_train(runner)


def test_samples_must_have_numbers_and_labels():
    bare = [BaseDataElement() for _ in range(4)]
    trace = trace_of(samples=bare)
    with pytest.raises(ValueError, match='without sample_idx'):
        objective_of(trace)(trace)
    numbered = [BaseDataElement(metainfo=dict(sample_idx=i)) for i in range(4)]
    with pytest.raises(ValueError, match='needs class labels'):
        objective_of(trace)(trace_of(samples=numbered))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size=1), 'size must be'),
        (dict(negatives=0), 'negatives must be'),
        (dict(dim=0), 'dim must be'),
        (dict(tau=0), 'tau must be a finite number above 0'),
        (dict(momentum=1.5), 'momentum must be a finite number from 0 to 1'),
        (dict(momentum=-0.5), 'momentum must be'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        CRD('x', **{**dict(size=10, dim=2), **options})


def test_the_positive_may_be_any_image_of_the_class():
    """``positive='class'``: the score of the image drawn takes the place of the image's own."""
    trace = trace_of()
    objective = objective_of(trace, positive='class')
    objective.classes[:] = torch.tensor([0, 1, 0, 2, 0, 0, 1, 2, 0, -1])
    index, labels = torch.arange(4), torch.as_tensor(LABELS)
    drawn = torch.stack([objective._positives(index, labels, step) for step in range(60)])
    for image in range(4):
        same = set((objective.classes == labels[image]).nonzero()[:, 0].tolist()) | {image}
        assert set(drawn[:, image].tolist()) == same
    assert torch.equal(drawn[7], objective._positives(index, labels, 7))
    losses = objective(trace)
    plain = objective_of(trace)
    plain.load_state_dict(objective.state_dict() | {'log_z': torch.full((2,), float('-inf'))})
    assert float(losses['loss_student'].detach()) > 0


def test_the_plan_states_the_memory():
    assert '49 MiB' in CRD('x').describe()[0]  # 2 * 50,000 * 128 * 4 bytes
