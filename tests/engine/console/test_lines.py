"""The lines of the console, from a message hub that knows a few steps."""

from types import SimpleNamespace

import pytest
from mmengine.logging import HistoryBuffer

from mmkd.distiller import Distiller
from mmkd.engine.console import lines
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.testing import tiny_classifier


def hub(eta=None, **scalars):
    """What of mmengine's message hub is read: means of the last steps, and the eta."""
    values = {
        f'train/{k.replace("__", ".")}': HistoryBuffer(v, [1] * len(v)) for k, v in scalars.items()
    }
    return SimpleNamespace(log_scalars=values, runtime_info={} if eta is None else dict(eta=eta))


def test_a_step():
    found = hub(
        eta=3723.4,
        loss=[9.0, 2.0, 1.0],
        loss_cls=[8.0, 1.0, 0.5],
        kd__fgfi__loss=[1.0, 0.5, 0.25],
        kd__fgfi__cells=[5.0, 5.0, 5.0],
        kd__fgfi__loss_projection=[0.0, 0.0, 0.0],
        lr=[0.1],
    )
    assert lines.progress('step 3/9', found, 2) == (
        'step 3/9  eta 1:02:03  loss 1.5  task 1.125  kd.fgfi.loss 0.375 (25 %)'
    )


def test_a_term_that_began_in_the_window_is_zero_before():
    found = hub(loss=[1.0, 1.0, 3.0, 3.0], kd__kd__loss=[2.0, 2.0])
    assert lines.progress('', found, 10) == '  loss 2  task 1  kd.kd.loss 1 (50 %)'
    assert lines.progress('', found, 2) == '  loss 3  task 1  kd.kd.loss 2 (67 %)'


def test_terms_that_are_everything():
    found = hub(loss=[0.3], kd__a__loss=[0.1], kd__b__loss=[0.2])
    assert lines.Losses.read(found, 1).text().startswith('loss 0.3  task 0  kd.b.loss')
    assert lines.Losses(2.0, {'kd.a.loss': 2.0}).text() == 'loss 2  task 0  kd.a.loss 2 (100 %)'


def test_plain_training_has_no_terms():
    assert lines.progress('step 1/9', hub(loss=[2.0]), 10) == 'step 1/9  loss 2'


def test_the_largest_terms_are_shown():
    terms = {f'kd__m{i}__loss': [float(i)] for i in range(6)}
    text = lines.Losses.read(hub(loss=[20.0], **terms), 1).text()
    assert text == (
        'loss 20  task 5  kd.m5.loss 5 (25 %)  kd.m4.loss 4 (20 %)  kd.m3.loss 3 (15 %)  '
        'kd.m2.loss 2 (10 %)  and 2 more'
    )


@pytest.mark.parametrize('total', [0.0, -1.0, float('nan'), float('inf')])
def test_a_share_of_nothing_is_left_out(total):
    assert '%' not in lines.Losses(total, {'kd.a.loss': float('inf')}).text()


def test_a_validation():
    metrics = {'coco/bbox_mAP': 0.3123, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_s': -1.0}
    teacher = {'coco/bbox_mAP': 0.402}
    assert lines.validation(metrics, 'coco/bbox_mAP', teacher, True) == (
        'coco/bbox_mAP 0.3123 (teacher 0.402)  bbox_mAP_50 0.5  bbox_mAP_s n/a  the best so far'
    )
    assert lines.validation({'a': 1.0, 'b': 2.0}, 'b', {'a': 3.0}, False) == 'b 2  a 1'
    assert lines.validation({}, None, {}, False) == 'no metric'
    classes = {f'coco/{name}_precision': 0.1 for name in ('car', 'bus', 'cat')}
    text = lines.validation({**classes, **metrics}, 'coco/bbox_mAP', {}, False)
    assert text == 'coco/bbox_mAP 0.3123  bbox_mAP_50 0.5  bbox_mAP_s n/a  car_precision 0.1'


def test_which_metric_comes_first():
    assert lines.main_metric(['x'], ['aAcc', 'mIoU']) == 'x'
    assert lines.main_metric([], ['aAcc', 'mIoU', 'mAcc']) == 'mIoU'
    assert lines.main_metric([], ['coco/bbox_mAP_50', 'coco/bbox_mAP']) == 'coco/bbox_mAP'
    assert lines.main_metric([], ['accuracy/top1']) == 'accuracy/top1'
    assert lines.main_metric([], []) is None


def test_rows_without_a_text_are_left_out():
    assert lines.rows([('best', 'x'), ('cost', ''), ('an_objective', 'y')]) == [
        'best         x',
        'an_objective y',
    ]


def test_an_objective_that_does_not_look_at_the_student():
    """The first phase of FT: its taps of the student are none, and there are no levels."""
    objectives = dict(ft=dict(type='mmkd.FT', phase='paraphraser'))
    teacher = dict(config=tiny_classifier(8), checkpoint='random')
    model = Distiller(tiny_classifier(4), objectives, teacher, trains='objectives')
    (text,) = (text for name, text in lines.plan_rows(model) if name == 'ft')
    assert text.startswith('FT, weight 500, backbone.layer3, trains '), text


def test_a_teacher_of_several_networks_is_named_by_its_kind():
    def network(width):
        return Teacher(build_model(tiny_classifier(width)), 'random')

    one, several = network(4), Ensemble(dict(a=network(4), b=network(4)), 'probability', 4.0)
    student, kd = build_model(tiny_classifier(4)), dict(type='mmkd.KD')
    for teacher, wanted in (
        (one, 'Classifier, 0.01 M parameters, RANDOM'),
        (several, 'Ensemble, 0'),
    ):
        model = Distiller(student, dict(kd=kd), teacher, preflight=False)
        assert lines.plan_rows(model)[1][1].startswith(wanted)
    assert 'mean of probabilities of a (0.5), b (0.5)' in lines.plan_rows(model)[1][1]
