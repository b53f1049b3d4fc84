"""How far the student is from a teacher: numbers, data without chance, and refusals."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from teacher_toys import make

from mmkd.functional.logit_distances import soft_kl
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.teachers.hardness import Hardness, calm_images, feature_distance
from mmkd.testing import tiny_classifier


@pytest.mark.parametrize(
    ('teacher', 'wanted'), [((1, 0), 0.01), ((1, 0.5), 0.128), ((1, 2), 0.722)]
)
def test_distance_of_features(teacher, wanted):
    s, t = torch.tensor([[1, 0.1]]).double(), torch.tensor([teacher]).double()
    apart, total = feature_distance([(s, t)])
    assert float(apart / total) == pytest.approx(wanted, abs=1e-6)
    apart, total = feature_distance([(s, t), (s, t)])
    assert float(apart / total) == pytest.approx(wanted, abs=1e-6)


FIXED = dict(config=tiny_classifier(width=4), checkpoint='random')


def measured(tmp_path, measure='kl', teacher=FIXED, objectives=None, count=8):
    runner = make(tmp_path, teacher=teacher, objectives=objectives)
    one = runner.model.teachers['teacher']
    torch.nn.init.normal_(one.model.head.fc.weight)
    return runner, Hardness(one, runner, measure, count)


def test_divergence_of_class_scores(tmp_path):
    runner, hardness = measured(tmp_path)
    student, teacher = runner.model.student, runner.model.teachers['teacher'].model
    before = torch.get_rng_state()
    (found,) = hardness([teacher.state_dict()], Progress())
    assert torch.equal(before, torch.get_rng_state()) and student.training
    images = [runner.train_dataloader.dataset[i * 12 // 8] for i in range(8)]
    data = student.data_preprocessor(
        dict(
            inputs=[i['inputs'] for i in images], data_samples=[i['data_samples'] for i in images]
        ),
        False,
    )
    student.eval()
    with torch.no_grad():
        own, other = student(data['inputs']), teacher(data['inputs'])
    assert found == pytest.approx(float(soft_kl(own, other, 1.0).mean()), rel=1e-5)
    student.train()
    with torch.autocast('cpu', torch.bfloat16):  # of a step, amid which it is asked
        assert hardness([teacher.state_dict()], Progress()) == [found]
        assert student(data['inputs']).requires_grad and student.head.fc.weight.requires_grad


def test_features_behind_the_adapter(tmp_path):
    wide = dict(config=tiny_classifier(width=8), checkpoint='random')
    objectives = dict(it=dict(type='mmkd.FitNet', student='backbone[-1]', teacher='backbone[-1]'))
    runner, hardness = measured(tmp_path, 'feature', wide, objectives)
    teacher = runner.model.teachers['teacher'].model
    (found,) = hardness([teacher.state_dict()], Progress())
    adapter = next(iter(runner.model.objectives['it'].adapters.values()))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
    (nothing,) = hardness([teacher.state_dict()], Progress())
    assert nothing == pytest.approx(1.0) and found != pytest.approx(1.0)


def test_other_classes(tmp_path):
    other = dict(config=tiny_classifier(width=4, num_classes=5), checkpoint='random')
    objectives = dict(it=dict(type='mmkd.SP', student='backbone', teacher='backbone'))
    with pytest.raises(ValueError, match='student has 3 classes and the teacher 5'):
        measured(tmp_path, 'kl', other, objectives)


def test_maps_that_no_adapter_makes_equal_are_refused_before_training(tmp_path):
    wide = dict(config=tiny_classifier(width=8), checkpoint='random')
    objectives = dict(it=dict(type='mmkd.AT', student='backbone[-1]', teacher='backbone[-1]'))
    _, hardness = measured(tmp_path, 'feature', wide, objectives)
    with pytest.raises(ValueError, match="measure='feature' cannot compare these networks: AT: "):
        hardness.rehearse()


def test_nothing_that_compares_maps(tmp_path):
    with pytest.raises(ValueError, match='needs an objective that compares maps.*found KD'):
        measured(tmp_path, 'feature')


CONFIGS = dict(type='mmkd.ClassFolders', data_root='x', pipeline=[dict(type='mmkd.RandomCrop')])


def test_training_images_without_chance(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr('mmkd.teachers.hardness.DATASETS.build', built.append)
    wrapped = dict(type='RepeatDataset', times=2, dataset=CONFIGS)
    val = dict(CONFIGS, pipeline=[dict(type='mmkd.PackClassInputs')])
    cfg = Config(dict(train_dataloader=dict(dataset=wrapped), val_dataloader=dict(dataset=val)))
    calm_images(SimpleNamespace(cfg=cfg))
    assert built[0]['dataset']['pipeline'] == [dict(type='mmkd.PackClassInputs')]
    assert cfg.train_dataloader.dataset.dataset.pipeline == [dict(type='mmkd.RandomCrop')]


def test_without_a_validation():
    cfg = Config(dict(train_dataloader=dict(dataset=CONFIGS)))
    with pytest.raises(ValueError, match="no val_dataloader. Add one, or take rule='even'"):
        calm_images(SimpleNamespace(cfg=cfg))


def test_the_student_is_left_as_it_was(tmp_path):
    runner, hardness = measured(tmp_path)
    before = {k: v.clone() for k, v in runner.model.student.state_dict().items()}
    hardness([build_model(tiny_classifier(width=4)).state_dict()], Progress())
    assert all(torch.equal(v, before[k]) for k, v in runner.model.student.state_dict().items())
