"""Mixup and CutMix: shares, boxes, and the label rule."""

import pytest
import torch

from mmkd.families import classifier
from mmkd.models.preprocessor import (
    ClassificationDataPreprocessor,
    cut_images,
    mix_images,
    mix_samples,
)
from mmkd.testing import class_labels


def batch(n=4):
    """Image i is filled with i, its class is i."""
    images = [torch.full((3, 8, 8), float(i)) for i in range(n)]
    return dict(inputs=images, data_samples=class_labels(torch.arange(n)))


def test_labels_and_numbers_are_those_of_the_larger_share():
    samples = class_labels(torch.tensor([2, 0, 1]))
    mixed = mix_samples(samples, [1, 2, 2], 0.3, 3)
    assert [x.gt_score.tolist() for x in mixed] == [
        pytest.approx(score) for score in ([0.7, 0, 0.3], [0.3, 0.7, 0], [0, 1, 0])
    ]
    assert classifier.labels(mixed).tolist() == [0, 1, 1]
    assert torch.cat([x.gt_label for x in mixed]).tolist() == [0, 1, 1]
    assert classifier.sample_indices(mixed).tolist() == [1, 2, 2]
    assert not any('gt_score' in x for x in samples)  # the originals stay


def test_a_mixture_of_an_image_without_label_has_none():
    samples = class_labels(torch.tensor([2, 0, 1]))
    del samples[0].gt_label
    mixed = mix_samples(samples, [1, 2, 0], 0.3, 3)
    assert ['gt_score' in x for x in mixed] == [False, True, False]
    assert ['gt_label' in x for x in mixed] == [False, True, False]


def test_mixup_is_a_weighted_mean():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 3, 2, 2)
    mixed, share = mix_images(images, torch.tensor([1, 2, 0]), 0.75)
    assert share == 0.75
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 1.25, 1.5]


@pytest.mark.parametrize('seed', range(5))
def test_cutmix_pastes_a_box_and_reports_what_is_left(seed):
    torch.manual_seed(seed)
    images = torch.stack([torch.zeros(3, 10, 20), torch.ones(3, 10, 20)])
    mixed, share = cut_images(images, torch.tensor([1, 0]), 0.6)
    assert float(mixed[0].mean()) == pytest.approx(1 - share)
    assert float(mixed[1].mean()) == pytest.approx(share)
    rows, columns = mixed[0, 0].any(1).nonzero(), mixed[0, 0].any(0).nonzero()
    assert mixed[0, 0].sum() == len(rows) * len(columns)  # one box
    assert share >= 0.6 - 1e-6  # at the border it is smaller
    assert cut_images(images, torch.tensor([1, 0]), 1.0)[1] == 1.0


@pytest.mark.parametrize('options', [dict(mixup=1.0), dict(cutmix=1.0), dict(mixup=1, cutmix=1)])
def test_pixels_and_targets_agree_in_training_only(options):
    torch.manual_seed(0)
    preprocessor = ClassificationDataPreprocessor(num_classes=4, **options)
    plain = preprocessor(batch(), training=False)
    assert torch.equal(plain['inputs'], torch.stack(batch()['inputs']))
    assert 'gt_score' not in plain['data_samples'][0]
    mixed = preprocessor(batch(), training=True)
    shares = torch.stack([x.gt_score for x in mixed['data_samples']])
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed['inputs'].mean((1, 2, 3)), shares @ torch.arange(4.0))
    assert (shares > 0).sum() > 4


def test_both_are_drawn_and_some_batches_stay_whole():
    torch.manual_seed(0)
    preprocessor = ClassificationDataPreprocessor(4, mixup=1.0, cutmix=1.0, mix_prob=0.5)
    kinds = {'whole': 0, 'mixup': 0, 'cutmix': 0}
    for _ in range(60):
        mixed = preprocessor(batch(), training=True)
        flat = bool((mixed['inputs'].flatten(1).std(1) < 1e-6).all())
        whole = 'gt_score' not in mixed['data_samples'][0]
        kinds['whole' if whole else 'mixup' if flat else 'cutmix'] += 1
    assert 20 < kinds['whole'] < 40 and min(kinds.values()) >= 8


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mixup=-1.0), 'mixup must be a finite number of at least 0, found -1.0'),
        (dict(mix_prob=1.5), 'mix_prob must be a finite number from 0 to 1, found 1.5'),
        (dict(cutmix=1.0), 'mixtures need num_classes='),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationDataPreprocessor(**options)


def test_images_of_unequal_size_are_refused():
    data = dict(inputs=[torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], data_samples=[])
    with pytest.raises(ValueError, match=r'differ in size, \[\(3, 8, 8\), \(3, 8, 9\)\]'):
        ClassificationDataPreprocessor()(data)


def test_pixels_are_normalised_in_the_order_of_the_channels():
    preprocessor = ClassificationDataPreprocessor(
        mean=[2.0, 1, 0], std=[1.0, 2, 4], bgr_to_rgb=True
    )
    image = torch.tensor([0.0, 3.0, 4.0])[:, None, None].expand(3, 2, 2)
    found = preprocessor(dict(inputs=[image], data_samples=[]))['inputs']
    assert found[0, :, 0, 0].tolist() == [2.0, 1.0, 0.0]
