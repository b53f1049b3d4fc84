"""Anchors: which files, when, and by which rule; runs, resumed ones too, and every refusal."""

import math

import pytest
import torch
from teacher_toys import assert_same, check_resumes, make, train

from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.teachers import Anchors, build_teacher
from mmkd.teachers.anchors import even_files, next_anchor
from mmkd.testing import tiny_classifier

CONFIG = tiny_classifier(width=4)
H = (0.10, 0.11, 0.13, 0.16, 0.30, 0.33)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Six files of a run, which move away from the first."""
    root = tmp_path_factory.mktemp('teacher')
    torch.manual_seed(1)
    start, end = build_model(CONFIG).state_dict(), build_model(CONFIG).state_dict()
    for epoch in range(1, 7):
        state = {
            k: v + (end[k] - v) * (epoch - 1) / 5 if v.is_floating_point() else v
            for k, v in start.items()
        }
        state['head.fc.weight'] = state['head.fc.weight'] * 20 * epoch
        torch.save(
            dict(state_dict=state, meta=dict(epoch=epoch, iter=10 * epoch)),
            root / f'epoch_{epoch}.pth',
        )
    return root


def anchors(folder, **options):
    return build_teacher(dict(type='mmkd.Anchors', config=CONFIG, folder=str(folder), **options))


def names(teacher):
    return [file.rpartition('_')[2].removesuffix('.pth') for file in teacher.files]


# ------------------------------------------------------------------------------------- the rules


def visited(eps, rule):
    """From the first of H on, numbered from 1."""
    found = [0]
    while found[-1] < len(H) - 1:
        found.append(found[-1] + next_anchor(H[found[-1] :], eps, rule))
    return [i + 1 for i in found]


@pytest.mark.parametrize(
    ('rule', 'eps', 'wanted'),
    [
        ('last_easy', 0.2, [1, 2, 3, 4, 5, 6]),
        ('last_easy', 0.5, [1, 3, 4, 5, 6]),
        ('last_easy', 2, [1, 5, 6]),
        ('last_easy', math.inf, [1, 6]),
        ('last_easy', 0, [1, 2, 3, 4, 5, 6]),
        ('first_hard', 0.2, [1, 3, 4, 5, 6]),
        ('first_hard', 0.5, [1, 4, 5, 6]),
        ('first_hard', 2, [1, 6]),
    ],
)
def test_anchors_of_the_sheet(rule, eps, wanted):
    assert visited(eps, rule) == wanted


def test_a_student_that_equals_its_anchor():
    assert next_anchor([0.0, 0.0, 0.1], 0.5) == 1
    assert next_anchor([0.0, 0.1, 0.2], 0.5) == 1
    assert next_anchor([0.0, 0.0, 0.1], 0.5, 'first_hard') == 2
    assert next_anchor([0.3], 0.5) == 0


@pytest.mark.parametrize(
    ('count', 'wanted'), [(30, [8, 15, 23, 30]), (12, [3, 6, 9, 12]), (4, [1, 2, 3, 4])]
)
def test_files_at_equal_distances(count, wanted):
    assert even_files(count, 4) == wanted


def test_files_of_a_folder(folder):
    assert names(anchors(folder)) == ['2', '3', '5', '6']
    assert names(anchors(folder, anchors=2)) == ['3', '6']
    assert names(anchors(folder, at=[0.0, 0.5])) == ['3', '6']
    assert anchors(folder).times == [0, 0.25, 0.5, 0.75]


def test_files_of_the_configs_own_run(folder, tmp_path, monkeypatch):
    (tmp_path / 'c.py').write_text(f'model = {CONFIG!r}\nwork_dir = {str(folder)!r}\n')
    assert names(Anchors(str(tmp_path / 'c.py'))) == ['2', '3', '5', '6']


def test_files_by_name_in_the_order_of_their_training(folder, log):
    files = [str(folder / f'epoch_{i}.pth') for i in (5, 1)]
    teacher = Anchors(CONFIG, files)
    assert names(teacher) == ['1', '5']
    assert 'in the order of their training: epoch_1.pth, epoch_5.pth' in log.text


def fc(teacher):
    return teacher.model.head.fc.weight.clone()


def test_weights_are_swapped_in_place(folder):
    teacher = anchors(folder)
    model, seen = teacher.model, []
    for i in range(8):
        teacher.before_step(Progress(i, 8))
        assert teacher.model is model
        seen.append(teacher.index)
        wanted = torch.load(teacher.files[teacher.index])['state_dict']['head.fc.weight']
        assert torch.equal(fc(teacher), wanted)
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not any(p.requires_grad for p in model.parameters()) and not model.training


def test_thirds_of_a_run_are_where_they_are(folder):
    teacher, seen = anchors(folder, anchors=3), []
    for i in range(936):
        teacher.before_step(Progress(i, 936))
        seen.append(teacher.index)
    assert [seen.index(k) for k in range(3)] == [0, 312, 624]


def test_times_of_ones_own(folder):
    teacher = anchors(folder, at=[0.0, 0.1])
    teacher.before_step(Progress(0, 8))
    assert teacher.index == 0
    teacher.before_step(Progress(1, 8))
    assert teacher.index == 1


# ------------------------------------------------------------------------------------------ runs


def entry(folder, **options):
    return dict(type='mmkd.Anchors', config=CONFIG, folder=str(folder), **options)


def index_of(model):
    return model.teachers['teacher'].index


def test_one_anchor_is_the_teacher(folder, tmp_path):
    one = train(tmp_path / 'a', teacher=entry(folder, at=[0.0]), steps=3)
    plain = dict(config=CONFIG, checkpoint=str(folder / 'epoch_6.pth'))
    assert_same(one, train(tmp_path / 'b', teacher=plain, steps=3))


def test_weight_zero_is_plain_training(folder, tmp_path):
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    teacher = entry(folder, rule='last_easy')
    one = train(tmp_path / 'a', teacher=teacher, objectives=objectives)
    assert_same(one, train(tmp_path / 'b', distils=False))


def test_even_anchors_resume_without_a_state(folder, tmp_path):
    whole, _ = check_resumes(tmp_path, 5, teacher=entry(folder), look=index_of)
    assert list(whole.watch.seen.values()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert 'teachers' not in torch.load(tmp_path / 'whole' / 'iter_5.pth', weights_only=False)


@pytest.mark.parametrize('measure', ['kl', 'feature'])
@pytest.mark.parametrize('at', [3, 4])
def test_a_greedy_run_resumes(folder, tmp_path, measure, at):
    objectives = dict(fitnet=dict(type='mmkd.FitNet', student='backbone', teacher='backbone'))
    options = {} if measure == 'kl' else dict(objectives=objectives)
    teacher = entry(
        folder, rule='last_easy', eps=0.3, measure=measure, images=6, anchors=6, at='even'
    )
    whole, again = check_resumes(tmp_path, at, teacher=teacher, look=index_of, **options)
    assert again.watch.seen == {i: whole.watch.seen[i] for i in again.watch.seen}
    assert whole.watch.seen[7] == 5


def test_every_threshold_ends_at_the_last(folder, tmp_path):
    for eps, wanted in ((math.inf, [0, 0, 3, 3, 3, 3, 3, 3]), (0, [0, 0, 1, 1, 2, 2, 3, 3])):
        teacher = entry(folder, rule='last_easy', eps=eps, images=6)
        runner = train(tmp_path / f'{eps}', teacher=teacher, look=index_of)
        assert list(runner.watch.seen.values()) == wanted


def test_choosing_leaves_no_trace(folder, tmp_path):
    """A greedy run whose choices are those of an even one is that run, bit for bit."""
    greedy = train(tmp_path / 'a', teacher=entry(folder, rule='last_easy', eps=0, images=6))
    assert_same(greedy, train(tmp_path / 'b', teacher=entry(folder)))


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(anchors=7), 'at least 7 checkpoints of the teacher, found 6'),
        (dict(at=0.5), 'Anchors: at must be a list, found 0.5'),
        (dict(at='odd'), "Anchors: at must be a list, found 'odd'"),
        (dict(anchors=0), 'anchors must be a whole number of at least 1'),
        (dict(at=[0.1, 0.5]), 'of which the first is 0'),
        (dict(at=[0.0, 0.5, 0.5]), '3 increasing fractions'),
        (dict(at=[0.0, 0.5], anchors=3), 'must be 3 increasing fractions'),
        (dict(at=[0.0, 1.0]), 'below 1'),
        (dict(rule='greedy'), 'rule must be one of'),
        (dict(eps=-0.1), 'eps must be a finite number of at least 0'),
        (dict(measure='l2'), 'measure must be one of'),
        (dict(images=0), 'images'),
        (dict(rule='last_easy', measure='feature', at=[0.0, 0.1]), 'have not learnt anything at'),
    ],
)
def test_bad_options(folder, options, words):
    with pytest.raises(ValueError, match=words):
        anchors(folder, **options)


def test_too_few_files(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r'at least 4 checkpoints .*found 0 in .*max_keep_ckpts=-1'
    ):
        anchors(tmp_path)
    with pytest.raises(ValueError, match='at least 2 checkpoints of the teacher, found 1'):
        Anchors(CONFIG, [str(folder / 'epoch_1.pth')])
    with pytest.raises(ValueError, match='found both'):
        Anchors(CONFIG, [str(folder / 'epoch_1.pth')], anchors=2)
    with pytest.raises(ValueError, match='checkpoints must be a list, found'):
        Anchors(CONFIG, str(folder / 'epoch_1.pth'))
    with pytest.raises(ValueError, match='name the folder'):
        Anchors(CONFIG)


def test_files_of_another_network_name_file_and_key(folder, tmp_path):
    other = tmp_path / 'epoch_9.pth'
    state = build_model(tiny_classifier(width=8)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(epoch=9, iter=90)), other)
    with pytest.raises(ValueError, match='epoch_9.pth does not fit') as error:
        Anchors(CONFIG, [str(folder / 'epoch_1.pth'), str(other)])
    assert 'backbone.conv1.weight' in str(error.value)


def test_folding_is_no_option(folder):
    with pytest.raises(TypeError, match='Anchors has no option fuse_conv_bn'):
        anchors(folder, fuse_conv_bn=True)


def test_a_checkpoint_of_another_choice(folder):
    teacher = anchors(folder, rule='last_easy')
    with pytest.raises(ValueError, match='at anchor 10, but there are 4'):
        teacher.load_state_dict(dict(index=9, decided=1))


def test_a_choice_without_a_runner(folder):
    teacher = anchors(folder, rule='last_easy')
    teacher.before_step(Progress(0, 8))
    with pytest.raises(RuntimeError, match='Train with mmkd.Runner'):
        teacher.before_step(Progress(7, 8))


def test_a_member_of_an_ensemble_does_not_choose(folder, tmp_path):
    teacher = dict(type='mmkd.Ensemble', members=dict(a=entry(folder, rule='last_easy')))
    runner = make(tmp_path, teacher=teacher)
    with pytest.raises(ValueError, match="member of an ensemble .*rule='even'"):
        runner.train()
