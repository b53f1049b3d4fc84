"""Metrics see data and model before the first step."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from mmkd.checks.metrics import check_best, check_metrics, names_of
from mmkd.datasets import PackClassInputs
from mmkd.evaluation import Accuracy, Calibration, CorLoc, Verification
from mmkd.registry import MODELS
from mmkd.testing import tiny_classifier


class Pictures(BaseDataset):
    """Twelve images of three people, of noise."""

    METAINFO = dict(classes=('ann', 'bob', 'eve'))

    def load_data_list(self):
        return [dict(img_path=f'{i % 3}/{i}.png', gt_label=i % 3) for i in range(12)]

    def prepare_data(self, idx):
        info = self.get_data_info(idx)
        info['img'] = torch.rand(8, 8, 3).mul(255).byte().numpy()
        return PackClassInputs()(info)


def loop(*metrics, gone=(), **options):
    dataset = Pictures(serialize_data=False, **options)
    for info in dataset.data_list:
        for key in gone:
            del info[key]
    loader = SimpleNamespace(dataset=dataset, collate_fn=pseudo_collate)
    return SimpleNamespace(dataloader=loader, evaluator=Evaluator(list(metrics)))


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    return MODELS.build(tiny_classifier(3))


def pairs(folder, *lines):
    file = folder / 'pairs.txt'
    file.write_text('\n'.join(lines))
    return str(file)


def test_what_suits_is_not_touched(classifier, tmp_path):
    file = pairs(tmp_path, '0/0.png 3.png 1', '0.png 1.png 0', '2.png 5.png 1', '2.png 4.png 0')
    metrics = Accuracy(topk=(1,)), Verification(folds=2, pairs=20), Verification(file, folds=2)
    classifier.train()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    state = torch.get_rng_state()
    check_metrics(loop(*metrics), classifier)
    assert torch.equal(state, torch.get_rng_state()) and classifier.training
    assert all(torch.equal(before[k], v) for k, v in classifier.state_dict().items())
    assert not any(metric.results for metric in metrics)


def test_pairs_that_the_data_cannot_give(tmp_path):
    file = pairs(tmp_path, '0.png 3.png 1', '0.png 77.png 0')
    with pytest.raises(ValueError, match=r"1 images .* such as '77.png'. Evaluated: 0/0.png, 1/1"):
        check_metrics(loop(Verification(file, folds=2)), None)
    with pytest.raises(ValueError, match='Pictures are not in files .* Let pairs be a number'):
        check_metrics(loop(Verification(file, folds=2), gone=['img_path']), None)
    with pytest.raises(ValueError, match='Pictures have no labels .* Name a file of pairs'):
        check_metrics(loop(Verification(pairs=20, folds=2), gone=['gt_label']), None)
    with pytest.raises(ValueError, match='pairs of both kinds are needed'):
        check_metrics(loop(Verification(pairs=20, folds=2), indices=[0, 3, 6]), None)


@pytest.mark.parametrize(
    'metric, words',
    [
        (Accuracy(topk=(1,), exits=True), 'exits=True needs the scores of several exits'),
        (CorLoc(), 'came without boxes of its objects'),
    ],
)
def test_predictions_that_a_metric_cannot_score(classifier, metric, words):
    with pytest.raises(ValueError, match=words):
        check_metrics(loop(metric), classifier)


def test_a_network_that_gives_scores_alone(classifier, monkeypatch):
    predict = type(classifier).forward

    def scores_alone(self, *args, **options):
        for sample in (found := predict(self, *args, **options)):
            del sample.pred_logit, sample.pred_embedding
        return found

    monkeypatch.setattr(type(classifier), 'forward', scores_alone)
    with pytest.raises(ValueError, match='these samples have none'):
        check_metrics(loop(Calibration(dirichlet=True)), classifier)
    with pytest.raises(ValueError, match='compares the embeddings'):
        check_metrics(loop(Verification(pairs=20, folds=2)), classifier)


def test_what_decides_is_measured():
    def check(metric, hook):
        check_best(loop(metric), [hook])

    best = CheckpointHook(save_best=['top1', 'top2'])
    check(Accuracy(topk=(1, 2)), best)
    check(Accuracy(topk=(1,), exits=True), best)
    check(Verification(), best)
    check(Accuracy(), CheckpointHook())
    check(Accuracy(), CheckpointHook(save_best='auto'))
    words = r"checkpoint.save_best='top2' is no metric .* has top1, top5\. Did you mean 'top"
    with pytest.raises(ValueError, match=words):
        check(Accuracy(), best)
    with pytest.raises(ValueError, match="EarlyStoppingHook.monitor='acc' is no metric"):
        check(Accuracy(), EarlyStoppingHook(monitor='acc', rule='greater'))


def test_names_of_the_metrics_of_other_packages():
    from mmdet.evaluation import CocoMetric
    from mmseg.evaluation import IoUMetric

    coco = names_of(CocoMetric(metric=['bbox', 'segm']))
    assert coco[0] == 'coco/bbox_mAP' and coco[-1] == 'coco/segm_mAP_l' and len(coco) == 12
    by_class = names_of(CocoMetric(metric='bbox', classwise=True), ['a', 'b'])
    assert by_class[5:] == ['coco/bbox_mAP_l', 'coco/a_precision', 'coco/b_precision']
    assert names_of(CocoMetric(metric='proposal')) is None
    assert names_of(IoUMetric()) == ['aAcc', 'mIoU', 'mAcc']
    assert names_of(IoUMetric(iou_metrics=['mDice'])) is None
    metric = IoUMetric(iou_metrics=['miou', 'mDice'])
    check_metrics(loop(metric), None)
    assert metric.metrics == ['mIoU', 'mDice']
    with pytest.raises(ValueError, match="iou_metrics must be one of .* found 'IoU'"):
        check_metrics(loop(IoUMetric(iou_metrics=['IoU'])), None)
