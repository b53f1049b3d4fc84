"""Verification: thresholds, folds, the area under the curve, and where pairs come from."""

import numpy as np
import pytest
import torch

from mmkd.evaluation import Verification
from mmkd.evaluation.verification import area_under_curve, best_threshold, fold_accuracies
from mmkd.registry import MODELS
from mmkd.structures import ClassSample
from mmkd.testing import tiny_classifier


def test_the_best_threshold():
    similarity = torch.tensor([0.9, 0.8, 0.3, 0.5, 0.1])
    same = torch.tensor([True, True, True, False, False])
    assert best_threshold(similarity, same) == pytest.approx(0.65), 'one of five is wrong'
    assert best_threshold(similarity, ~same) == pytest.approx(1.9, abs=1e-6), 'none exceeds it'
    torch.manual_seed(0)
    for _ in range(20):
        s, y = torch.randint(0, 6, (12,)) / 6, torch.rand(12) > 0.5
        right = [((s > t) == y).sum() for t in (-1, *s.tolist())]
        assert ((s > best_threshold(s, y)) == y).sum() == max(right)


def test_a_fold_has_the_threshold_of_the_others():
    similarity = torch.tensor([0.9, 0.1, 0.9, 0.1, 0.4, 0.45])
    same = torch.tensor([True, False, True, False, True, False])
    assert fold_accuracies(similarity, same, 3).tolist() == [1, 1, 0.5]


def test_the_area_slowly():
    torch.manual_seed(0)
    s, y = torch.randint(0, 8, (40,)) / 8, torch.rand(40) > 0.4
    above = (s[y][:, None] > s[~y]).double() + (s[y][:, None] == s[~y]).double() / 2
    assert area_under_curve(s, y) == pytest.approx(float(above.mean()))
    assert area_under_curve(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 1


def samples(count=30, noise=0.0):
    """Three classes along three axes, of any length."""
    torch.manual_seed(0)
    found = []
    for i in range(count):
        axis = torch.eye(3)[i % 3] * (i + 1) + noise * torch.randn(3)
        sample = ClassSample(metainfo=dict(img_path=f'data/{i % 3}/{i}.png')).set_gt_label(i % 3)
        found.append(sample.set_prediction(axis.softmax(0), axis, axis).to_dict())
        found[-1]['img_path'] = f'data/{i % 3}/{i}.png'
    return found


def score(metric, given):
    metric.process({}, given)
    return metric.evaluate(len(given))


def test_pairs_of_labels():
    found = score(Verification(pairs=40), samples())
    assert found == dict(accuracy=100, accuracy_error=0, auc=100)
    noisy = [score(Verification(pairs=40, seed=s), samples(noise=20.0)) for s in (0, 0, 1)]
    assert 40 < noisy[0]['auc'] < 100 and noisy[0] == noisy[1] != noisy[2]


def test_pairs_of_a_file(tmp_path):
    lines = [
        f'{i % 3}/{i}.png {(i + k) % 3}/{i + k}.png {int(k == 3)}'
        for i in range(10)
        for k in (1, 3)
    ]
    (tmp_path / 'pairs.txt').write_text('\n'.join([*lines, '']))
    found = score(Verification(pairs=str(tmp_path / 'pairs.txt'), folds=5), samples())
    assert found == dict(accuracy=100, accuracy_error=0, auc=100)
    (tmp_path / 'pairs.txt').write_text(f'{lines[0]}\n'.replace('1/1.png', '1/99.png') * 4)
    with pytest.raises(ValueError, match=r"1 images of the pairs are .* such as '1/99.png'"):
        score(Verification(pairs=str(tmp_path / 'pairs.txt'), folds=2), samples())
    (tmp_path / 'pairs.txt').write_text('a.png b.png yes\n')
    with pytest.raises(ValueError, match='must have lines IMAGE IMAGE 1'):
        Verification(pairs=str(tmp_path / 'pairs.txt'))
    with pytest.raises(FileNotFoundError, match='there is no file none.txt'):
        Verification(pairs='none.txt')


def test_bad_options_and_data():
    with pytest.raises(ValueError, match='folds must be a whole number of at least 2'):
        Verification(folds=1)
    with pytest.raises(ValueError, match='pairs must be a whole number of at least 20'):
        Verification(pairs=10)
    one = [sample | dict(gt_label=torch.tensor([0])) for sample in samples()]
    with pytest.raises(ValueError, match='of both kinds are needed'):
        score(Verification(pairs=20), one)
    bare = [{k: v for k, v in s.items() if k != 'pred_embedding'} for s in samples()]
    with pytest.raises(ValueError, match='these samples have none'):
        score(Verification(pairs=20), bare)


def test_a_classifier_gives_its_embedding():
    model = MODELS.build(tiny_classifier(4)).eval()
    images = torch.randn(2, 3, 8, 8)
    (first, second) = model(images, mode='predict')
    pooled = model.pool(model.extract_feat(images)[-1])
    np.testing.assert_allclose(first.pred_embedding.detach(), pooled[0].detach(), rtol=1e-6)
    assert second.pred_embedding.shape == pooled[1].shape
