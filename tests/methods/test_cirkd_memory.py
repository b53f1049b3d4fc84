"""CIRKD's memory: worked numbers, what queues keep, and what leaves them alone."""

import copy

import pytest
import torch
from segmentation_toys import ToySegmentor, check_memory, make_step, prepare, probe_tensors

from mmkd.functional import similarity_kl
from mmkd.functional.relations import smooth_unit
from mmkd.levels import Level
from mmkd.methods.cirkd_memory import CIRKDMemory, memory_kl

S, T, Y = probe_tensors()


def labelled(x):
    return smooth_unit(x.permute(0, 2, 3, 1)[Y != 255])


def test_probe(monkeypatch):
    bank = smooth_unit(torch.cat((torch.eye(3), torch.ones(1, 3))).double())
    found = memory_kl(labelled(S), labelled(T), bank)
    assert float(found) == pytest.approx(3.5958357, abs=1e-5)
    assert float(memory_kl(labelled(S), labelled(S), bank)) == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr(similarity_kl, 'AT_ONCE', 16)
    leaf = labelled(S).requires_grad_()
    parts = memory_kl(leaf, labelled(T), bank)
    assert float(parts) == pytest.approx(float(found))
    parts.backward()
    assert leaf.grad.any()


def toys(**options):
    torch.manual_seed(0)
    models = ToySegmentor(4), ToySegmentor(6)
    small = dict(pixel_size=40, region_size=20, pixels=12, regions=6)
    objective = prepare(CIRKDMemory(**(small | options)), *models)
    return objective, models


def test_what_a_step_remembers():
    objective, models = toys(pushed=2)
    labels = torch.zeros(2, 32, 48).long()
    labels[0, 16:] = 1
    trace = make_step(objective, *models, labels=labels)
    found = objective(trace)
    assert set(found) == {'loss_pixel', 'loss_region'}
    assert objective.region_queue.next.tolist() == [2, 1, 0]
    assert objective.pixel_queue.next.tolist() == [4, 2, 0]
    teacher = smooth_unit(trace.teacher[objective.teacher_taps[0]][0].permute(0, 2, 3, 1))
    own = teacher[0][labels[0, ::8, ::8] == 1]
    torch.testing.assert_close(objective.region_queue.entries[1, 0], smooth_unit(own.mean(0)))
    for row in objective.pixel_queue.entries[1, :2]:
        assert (own - row).abs().sum(1).min() < 1e-6, 'a pixel of the class'
    objective.eval()
    objective(trace)
    assert objective.region_queue.next.tolist() == [2, 1, 0], 'nothing is pushed in evaluation'


def test_a_step_is_compared_with_what_it_pushed():
    """In queues of one entry nothing else is left to draw, as in the published order."""
    objective, models = toys(pixel_size=1, region_size=1)
    before = objective.region_queue.entries.clone()
    trace = make_step(objective, *models)
    found = objective(trace)
    with torch.no_grad():
        student = objective.projection(trace.student[objective.student_taps[0]][0])
        teacher = trace.teacher[objective.teacher_taps[0]][0]
        rows = [smooth_unit(x.permute(0, 2, 3, 1).flatten(0, 2)) for x in (student, teacher)]
    for key, queue in (('pixel', objective.pixel_queue), ('region', objective.region_queue)):
        wanted = memory_kl(*rows, queue.entries.flatten(0, 1))
        torch.testing.assert_close(found[f'loss_{key}'].detach(), wanted)
    stale = memory_kl(*rows, before.flatten(0, 1))
    assert float(found['loss_region'].detach()) != pytest.approx(float(stale), rel=1e-3)


def test_compat_takes_pixels_from_anywhere():
    objective, models = toys(variant='code', pushed=3)
    labels = torch.zeros(2, 32, 48).long()
    labels[:, 16:] = 1
    trace = make_step(objective, *models, labels=labels)
    objective(trace)
    teacher = smooth_unit(trace.teacher[objective.teacher_taps[0]][0].permute(0, 2, 3, 1))
    upper = teacher[0, :2].flatten(0, 1)
    for row in objective.pixel_queue.entries[1, :3]:
        assert (upper - row).abs().sum(1).min() < 1e-6, 'positions counted within the class'


def test_nothing_labelled_leaves_the_queues_alone():
    objective, models = toys()
    before = copy.deepcopy(objective.state_dict())
    trace = make_step(objective, *models, labels=torch.full((2, 32, 48), 255))
    found = objective(trace)
    assert all(float(v.detach()) == 0 and v.requires_grad for v in found.values())
    for key in ('pixel_queue.entries', 'region_queue.entries', 'pixel_queue.next'):
        assert torch.equal(objective.state_dict()[key], before[key])


def test_a_resumed_memory_goes_on():
    objective, models = toys()
    trace = make_step(objective, *models)
    objective(trace)
    resumed, _ = toys()
    resumed.load_state_dict(objective.state_dict())
    steps = [memory(trace) for memory in (objective, resumed)]
    assert all(torch.equal(steps[1][key], value) for key, value in steps[0].items())
    assert resumed.state_dict().keys() == objective.state_dict().keys()
    for key, value in objective.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    fresh, _ = toys()
    assert not torch.equal(fresh.pixel_queue.entries, objective.pixel_queue.entries)


def test_same_seed_same_draw():
    steps = []
    for seed in (0, 0, 1):
        objective, models = toys(seed=seed)
        trace = make_step(objective, *models)
        steps.append(float(objective(trace)['loss_pixel'].detach()))
    assert steps[0] == steps[1] != steps[2]


def test_one_sigmoid_output_has_two_classes():
    objective = CIRKDMemory()
    pair = [ToySegmentor(num_classes=2, out_channels=1) for _ in range(2)]
    objective.bind(*pair)
    assert objective.classes == 2


def test_sizes_and_what_is_saved():
    many = CIRKDMemory()
    many.bind(ToySegmentor(num_classes=60), ToySegmentor(num_classes=60))
    assert many.sizes == (2000, 2000)
    few = CIRKDMemory()
    few.bind(ToySegmentor(), ToySegmentor())
    assert few.sizes == (20000, 2000)
    assert toys()[0].describe() == [
        'remembers pixels, 3 x 40 x 6, 0 MB',
        'remembers regions, 3 x 20 x 6, 0 MB',
    ]
    assert 'pixel_queue.entries' in toys()[0].state_dict()
    assert 'pixel_queue.entries' not in toys(persistent=False)[0].state_dict()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tau=0), 'tau must be a finite number above 0'),
        (dict(pixel_size=0), 'pixel_size must be'),
        (dict(pushed=0), 'pushed must be'),
        (dict(regions=0), 'regions must be'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        CIRKDMemory(**options)


def test_unequal_strides_are_refused_at_build():
    levels = [Level((8, 16, 16), 16, 'x')], [Level((8, 32, 32), 8, 'y')]
    objective = CIRKDMemory()
    with pytest.raises(ValueError, match=r"stride of the student is 16 and the teacher's 8"):
        objective.setup(*levels)


def compare_with_a_bank(student, teacher):
    bank = smooth_unit(torch.randn(4096, student.shape[1]))
    pixels = [smooth_unit(x.flatten(2).mT.flatten(0, 1)) for x in (student, teacher)]
    return memory_kl(*pixels, bank)


def test_peak_memory_at_crops_of_512_x_1024():
    """It works in parts of one size, however many there are."""
    check_memory(lambda s, t: compare_with_a_bank(s[..., :36], t[..., :36]), 1, 8)
