"""TokenDistillation: distances of tokens, normalised teachers, FitNet as a special case."""

import pytest
import torch
from map_toys import FS, FT, on_maps
from torch import nn
from torch.nn import functional as F

from mmkd.distiller import Distiller
from mmkd.functional.standardise import batch_standardise
from mmkd.makers.standardiser import linear_map
from mmkd.methods.fitnet import hint_error
from mmkd.methods.token_distillation import (
    TokenDistillation,
    VectorQueue,
    kl_of_similarities,
    token_distance,
)
from mmkd.plan import Plan
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import VisionModel
from mmkd.testing import (
    classification_batch,
    detection_batch,
    make_trace,
    tiny_classifier,
    tiny_retinanet,
)


def on(maps=(FS, FT), **options):
    return on_maps(TokenDistillation('a', adapt=None, **options), *([x.float()] for x in maps))


def write(path, maps, rule):
    """A file of the maker, for these maps (N, D, h, w)."""
    rows = [x.double().movedim(1, -1).flatten(0, -2) for x in maps]
    means = [x.mean(0) for x in rows]
    covariances = [(x - m).T @ (x - m) / len(x) for x, m in zip(rows, means, strict=True)]
    matrices = [linear_map(m, c, rule) for m, c in zip(means, covariances, strict=True)]
    torch.save(dict(mean=means, matrix=matrices), path)
    return str(path)


def test_tokens_of_the_sheet():
    pair = torch.tensor([1.0, 2, 2]), torch.tensor([2.0, 1, 2])
    for smooth, wanted in ((0.0, 0.111111), (1.0, 0.333333), (0.1, 0.133333)):
        assert float(token_distance(*pair, smooth)) == pytest.approx(wanted, abs=1e-6)


def test_every_place_is_a_token():
    s, t = FS.float(), FT.float()
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 2) for x in (s, t)]
    wanted = sum(token_distance(a, b) for a, b in zip(*rows, strict=True)) / 8
    torch.testing.assert_close(on()['loss'], wanted)
    bare = sum(token_distance(a, b, 0) for a, b in zip(*rows, strict=True)) / 8
    torch.testing.assert_close(on(smooth=0)['loss'], bare)


def test_squared_and_not_normalised_is_fitnet():
    assert torch.equal(on(form='mse')['loss'], hint_error(FS.float(), FT.float()))


def test_normalised_over_the_batch():
    wanted = hint_error(FS.float(), batch_standardise(FT.float()))
    assert torch.equal(on(form='mse', normalise='batch')['loss'], wanted)


@pytest.mark.parametrize('rule', ['standardise', 'phi_s'])
def test_normalised_by_a_file(rule, tmp_path):
    scales = torch.tensor([1.0, 30.0, 0.1, 5.0]).view(1, 4, 1, 1)
    torch.manual_seed(0)
    teacher = torch.randn(4, 4, 6, 6) * scales + 3
    objective = TokenDistillation('a', normalise=write(tmp_path / 's.pt', [teacher], rule))
    on_maps(objective, [teacher.clone()], [teacher])
    found = objective._normal(teacher, 0)
    assert float(found.mean((0, 2, 3)).abs().max()) < 1e-4
    torch.testing.assert_close(found.var((0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    if rule == 'standardise':
        torch.testing.assert_close(found, batch_standardise(teacher), atol=1e-3, rtol=1e-3)
    assert not [key for key in objective.state_dict() if not key.startswith('adapters')]
    with pytest.raises(
        ValueError, match=r'is for maps of \[4\] channels, but the teacher shows \[2\]'
    ):
        on_maps(
            TokenDistillation('a', normalise=str(tmp_path / 's.pt')), [FS.float()], [FT.float()]
        )


# ----------------------------------------------------------------------------- similarities


@pytest.mark.parametrize(('tau', 'wanted'), [(0.07, 4.898908), (1.0, 0.054562)])
def test_queue_of_the_sheet(tau, wanted):
    bank = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]])
    t, s = torch.tensor([[0.8, 0.6]]), torch.tensor([[1.0, 0]])
    value = kl_of_similarities(s @ bank.T, t @ bank.T, tau)
    assert float(value) == pytest.approx(wanted, abs=2e-6)
    more = torch.cat((bank, torch.randn(2, 2)))
    keep = torch.arange(5) < 3
    masked = kl_of_similarities(s @ more.T, t @ more.T, tau, keep)
    torch.testing.assert_close(masked, value)


def test_the_queue_holds_the_last_vectors():
    queue, rows = VectorQueue(4, 2), torch.arange(14.0).view(7, 2)
    assert not queue.filled.any()
    queue.push(rows[:3])
    assert queue.filled.tolist() == [True] * 3 + [False]
    queue.push(rows[3:5])
    assert queue.filled.all() and sorted(queue.entries[:, 0].tolist()) == [2, 4, 6, 8]
    queue.push(rows[:7])
    assert sorted(queue.entries[:, 0].tolist()) == [6, 8, 10, 12]


def literal_kl(s, t, tau):
    p, q = ((x.double() / tau).softmax(-1) for x in (t, s))
    return float((p * (p / q).log()).sum(-1).mean())


def test_images_among_those_that_were_seen():
    objective = TokenDistillation('a', adapt=None, form='queue', queue=3, tau=0.5)
    means = [F.normalize(x.float().mean((2, 3)), dim=1) for x in (FS, FT)]
    value = on_maps(objective, [FS.float()], [FT.float()])['loss_global']
    assert float(value) == pytest.approx(
        literal_kl(*(x @ means[1].T for x in means), 0.5), rel=1e-5
    )
    flipped = FT.float().flip(1)
    objective.eval()  # says what it would say, and remembers nothing
    before = objective.queue.entries.clone()
    trace = make_trace(dict(a=FS.float()), dict(a=flipped))
    other = F.normalize(flipped.mean((2, 3)), dim=1)
    wanted = literal_kl(means[0] @ means[1].T, other @ means[1].T, 0.5)
    assert float(objective(trace)['loss_global']) == pytest.approx(wanted, rel=1e-5)
    assert torch.equal(objective.queue.entries, before)
    assert {'queue.entries', 'queue.pushed'} <= set(objective.state_dict())


def test_places_among_those_of_their_image():
    objective = TokenDistillation('a', adapt=None, form='global_local', tau=0.5)
    losses = on_maps(objective, [FS.float()], [FT.float()])
    alike = []
    for maps in (FS.float(), FT.float()):
        tokens = F.normalize(maps.flatten(2).transpose(1, 2), dim=2)
        alike.append(torch.stack([one @ one.T for one in tokens]))
    assert float(losses['loss_local']) == pytest.approx(literal_kl(*alike, 0.5), rel=1e-5)
    queue = TokenDistillation('a', adapt=None, form='queue', tau=0.5)
    alone = on_maps(queue, [FS.float()], [FT.float()])
    assert set(alone) == {'loss_global'} and torch.equal(
        *(x['loss_global'] for x in (alone, losses))
    )
    same = TokenDistillation('a', adapt=None, form='global_local')
    assert all(abs(float(x)) < 1e-6 for x in on_maps(same, [FS.float()], [FS.float()]).values())


def test_two_batches_before_one_backward_pass():
    """As labelled images and others are: the second changes the queue that the first has used."""
    objective = TokenDistillation('a', adapt=None, form='queue', queue=3)
    maps = FS.float().requires_grad_()
    losses = [on_maps(objective, [maps], [FT.float()])['loss_global']]
    losses.append(objective(make_trace(dict(a=maps), dict(a=FT.float())))['loss_global'])
    sum(losses).backward()
    assert maps.grad.isfinite().all() and maps.grad.any()


def test_queues_that_do_not_fit():
    objective = TokenDistillation('a', form='queue', queue=8)
    objective.check_dataset(range(9))
    with pytest.raises(
        ValueError, match='remembers as many images as .* Take a quarter of that, 2'
    ):
        objective.check_dataset(range(8))
    TokenDistillation('a').check_dataset(range(8))
    pair = [FS.float()] * 2, [FT.float()] * 2
    with pytest.raises(ValueError, match='compares one map of each network, found 2'):
        on_maps(TokenDistillation(['a', 'b'], form='global_local'), *pair)
    for form, options in (
        ('mse', dict(smooth=0.1)),
        ('cosine', dict(queue=4)),
        ('queue', dict(smooth=0)),
    ):
        with pytest.raises(ValueError, match='has no effect with form='):
            TokenDistillation('a', form=form, **options)


def vision(layers=1):
    class Patches(nn.Module):
        patch_size = 16

        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 6, 16, 16) for _ in range(layers))

        def forward(self, x):
            return [conv(x) for conv in self.convs]

    return VisionModel(Patches(), 'own')


def test_default_taps_and_a_pyramid():
    student = tiny_retinanet(4)
    with pytest.raises(ValueError, match='has taps of its own for classifiers only'):
        TokenDistillation().bind(build_model(student), vision().model)
    distiller = Distiller(
        tiny_classifier(4), dict(it=dict(type='mmkd.TokenDistillation')), vision()
    )
    objective = distiller.objectives['it']
    assert [str(t) for t in (*objective.student_taps, *objective.teacher_taps)] == [
        'backbone[-1]',
        'maps',
    ]
    pyramid = dict(type='mmkd.TokenDistillation', student='backbone[1:]', teacher='maps')
    distiller = Distiller(student, dict(it=pyramid), vision(3)).train()
    assert distiller.objectives['it'].pairs == [(0, 0), (1, 1), (2, 2)]
    inputs, samples = detection_batch(2)
    distiller.loss(inputs, samples)['kd.it.loss'].backward()
    assert distiller.student.backbone.conv1.weight.grad.any()
    assert 'cosine of features' in str(distiller.plan)


def test_a_teacher_of_the_students_kind():
    objective = TokenDistillation(normalise='batch', form='mse')
    teacher = Teacher(build_model(tiny_classifier(8)), 'random')
    Plan(build_model(tiny_classifier(4)), dict(teacher=teacher), dict(it=objective)).prepare()
    assert str(objective.teacher_taps[0]) == 'backbone[-1]'


def test_images_without_labels_may_be_mixed():
    """Teacher and student see the same mixture, which has no label."""
    student = tiny_classifier(4)
    student['data_preprocessor'] = dict(student.get('data_preprocessor', {}), mixup=1.0)
    distiller = Distiller(
        student, dict(it=dict(type='mmkd.TokenDistillation')), vision(), task_weight=None
    ).train()
    inputs, samples = classification_batch(4, (32, 32))
    for sample in samples:
        del sample.gt_label
    raw = dict(inputs=[x.byte() for x in (inputs * 30 + 120)], data_samples=samples)
    torch.manual_seed(0)
    batch = distiller.data_preprocessor(raw, True)
    losses = distiller(**batch, mode='loss')
    assert float(losses['kd.it.loss'].detach()) > 0 and list(losses) == ['kd.it.loss']


def test_pictures():
    trace = make_trace(dict(a=FS.float()), dict(a=FT.float()))
    for form in ('mse', 'cosine'):
        objective = TokenDistillation('a', adapt=None, form=form)
        on_maps(objective, [FS.float()], [FT.float()])
        (view,) = objective.views(trace)
        assert view.maps.shape == (2, 2, 2)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match='form must be one of'):
        TokenDistillation(form='none')
    with pytest.raises(ValueError, match="smooth=0.5 has no effect with form='mse'"):
        TokenDistillation(form='mse', smooth=0.5)
    with pytest.raises(ValueError, match='smooth must be a finite number from 0 to 1'):
        TokenDistillation(smooth=2)
    with pytest.raises(FileNotFoundError, match='there is no file nowhere.pt'):
        TokenDistillation(normalise='nowhere.pt')
    torch.save(dict(a=torch.ones(1)), tmp_path / 'x.pt')
    with pytest.raises(ValueError, match='was not written by mmkd make Standardiser'):
        TokenDistillation(normalise=str(tmp_path / 'x.pt'))
