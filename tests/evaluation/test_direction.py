"""Which metrics are better when they are lower."""

import pytest

from mmkd.evaluation.direction import lower_is_better


@pytest.mark.parametrize(
    ('metric', 'lower'),
    [
        ('coco/bbox_mAP', False),
        ('top1', False),
        ('mIoU', False),
        ('accuracy', False),
        ('corloc_fidelity', False),
        ('nll', True),
        ('ece', True),
        ('val/loss_cls', True),
        ('accuracy_error', True),
        ('MAE', True),
    ],
)
def test_by_its_name(metric, lower):
    assert lower_is_better(metric) == lower


def test_the_rule_of_the_run_is_asked_first():
    hook = dict(save_best='x/score', rule='less')
    assert lower_is_better('score', hook) and not lower_is_better('top1', hook)
    several = dict(save_best=['nll', 'score'], rule=['greater', 'less'])
    assert not lower_is_better('nll', several) and lower_is_better('x/score', several)
    assert lower_is_better('score', dict(save_best=['a', 'score'], rule='less'))
    assert lower_is_better('nll', dict(save_best='nll')) and lower_is_better('nll', dict(rule=None))
