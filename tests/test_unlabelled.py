"""Batches with unlabelled images: losses of the labelled ones, and means over all."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS
from mmseg.utils import register_all_modules
from torch.utils.data import BatchSampler

from mmkd.datasets.unlabelled import (
    AlternatingSampler,
    DropLabels,
    ImageFolder,
    MixedSampler,
    Unlabelled,
)
from mmkd.distiller import Distiller
from mmkd.methods.cwd import CWD
from mmkd.methods.fgfi import FGFI
from mmkd.testing import (
    detection_batch,
    segmentation_batch,
    tiny_pspnet,
    tiny_retinanet,
    tiny_yolov3,
)
from mmkd.unlabelled import (
    check_listeners,
    check_mixture,
    joined,
    listens_without_labels,
    split_batch,
)


def without_labels(samples):
    return [DropLabels().transform(dict(data_samples=s))['data_samples'] for s in samples]


def distiller_of(make=tiny_yolov3, weight=1.0, **options):
    torch.manual_seed(0)
    objective = dict(dict(type='mmkd.OD200F', weight=weight), **options)
    teacher = dict(config=make(8, norm='GN'), checkpoint='random')
    return Distiller(make(4, norm='GN'), dict(it=objective), teacher).train()


def losses_of(distiller, inputs, samples):
    torch.manual_seed(1)
    found = distiller.loss(inputs, copy.deepcopy(samples))
    return {k: sum(v) if isinstance(v, list) else v for k, v in found.items()}


def test_own_losses_are_those_of_the_labelled_and_the_rest_is_a_mean():
    """LF-4, and the mean over images: norms of a single image, so each part can run alone."""
    distiller, (inputs, samples) = distiller_of(), detection_batch(3)
    free = without_labels(copy.deepcopy(samples[1:]))
    whole = losses_of(distiller, inputs, [samples[0], *free])
    alone = losses_of(distiller, inputs[:1], samples[:1])
    others = losses_of(distiller, inputs[1:], samples[1:])  # whose labels no term reads
    for key, value in whole.items():
        wanted = alone[key]
        if key.startswith('kd.it.loss'):
            wanted = (alone[key] + 2 * others[key]) / 3
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    total = sum(v for k, v in whole.items() if k.startswith('kd.it.loss'))
    total.backward()
    assert distiller.student.backbone.conv1.weight.grad.any()


def test_a_batch_with_labels_is_as_it_was():  # LF-2
    inputs, samples = detection_batch(2)
    found = split_batch(inputs, samples)
    assert found[0][0] is inputs and found[0][1] is samples and found[1] is None
    assert split_batch(inputs, None) == ((inputs, None), None)


def test_order_does_not_matter():
    inputs, samples = detection_batch(3)
    without_labels(samples[:1])
    (own, known), free = split_batch(inputs, samples)
    assert torch.equal(own, inputs[1:]) and known == samples[1:]
    assert torch.equal(free[0], inputs[:1]) and free[1] == samples[:1]


def test_what_needs_labels_learns_from_the_labelled_alone():
    distiller = distiller_of(tiny_retinanet, type='mmkd.FGFI')
    inputs, samples = detection_batch(2)
    alone = losses_of(distiller, inputs[:1], samples[:1])
    whole = losses_of(distiller, inputs, [samples[0], *without_labels([samples[1]])])
    torch.testing.assert_close(whole['kd.it.loss'], alone['kd.it.loss'])


def test_class_scores_of_a_dense_head_need_no_boxes():
    """ADL; the same terms with label weights learn from the labelled image alone."""
    options = dict(type='mmkd.DenseKD', classes='adl', boxes=None, normaliser='power')
    inputs, samples = detection_batch(3)
    free = without_labels(copy.deepcopy(samples[1:]))
    found = {}
    for masked in (None, True):
        distiller = distiller_of(tiny_retinanet, **options, mask_ignore=masked)
        whole = losses_of(distiller, inputs, [samples[0], *free])
        alone = losses_of(distiller, inputs[:1], samples[:1])
        found[masked] = whole['kd.it.loss_classes'], alone['kd.it.loss_classes']
        if masked is None:
            others = losses_of(distiller, inputs[1:], samples[1:])['kd.it.loss_classes']
    wanted = (found[None][1] + 2 * others) / 3
    torch.testing.assert_close(found[None][0], wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(*found[True])


def test_a_segmentor():
    distiller = distiller_of(tiny_pspnet, type='mmkd.CWD')
    inputs, samples = segmentation_batch(3)
    without_labels(samples[1:])
    losses = losses_of(distiller, inputs, samples)
    assert losses['kd.it.loss'] > 0 and losses['decode.loss_ce'] > 0


def test_at_weight_zero_the_student_does_not_run_twice():
    distiller, (inputs, samples) = distiller_of(weight=0.0), detection_batch(2)
    calls = []
    distiller.student.backbone.register_forward_hook(lambda *_: calls.append(1))
    losses_of(distiller, inputs, [samples[0], *without_labels([samples[1]])])
    assert len(calls) == 1


def test_a_batch_without_any_label():
    inputs, samples = detection_batch(2)
    without_labels(samples)
    with pytest.raises(ValueError, match='A batch has no labelled image'):
        split_batch(inputs, samples)
    torch.manual_seed(0)
    pure = Distiller(
        tiny_yolov3(4),
        dict(it=dict(type='mmkd.OD200F')),
        dict(config=tiny_yolov3(8), checkpoint='random'),
        task_weight=None,
    ).train()
    assert sum(v for k, v in pure.loss(inputs, samples).items() if '.loss' in k) > 0


def test_terms_are_joined():
    found = joined({'kd.it.loss_a': 3.0, 'kd.it.share': 1.0}, {'kd.it.loss_a': 6.0}, (1, 2))
    assert found == {'kd.it.loss_a': 5.0, 'kd.it.share': 1.0}


# ------------------------------------------------------------------------------------ the data


class Numbers(ImageFolder):
    """Samples that are their own number."""

    def __init__(self, count, **kwargs):
        self.count = count
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(number=i) for i in range(self.count)]


def mixture(n=10, m=7):
    return ConcatDataset([Numbers(n), Numbers(m)])


@pytest.mark.parametrize(('size', 'counts'), [(16, (10, 6)), (8, (5, 3)), (4, (2, 2)), (2, (1, 1))])
def test_shares_of_a_batch(size, counts):  # LF-5
    sampler = MixedSampler(mixture(), size, labelled=6, unlabelled=4, seed=0)
    assert sampler.counts == counts


def test_batches_of_both_kinds():
    sampler = MixedSampler(mixture(), 4, labelled=2, unlabelled=2, seed=0)
    numbers = list(sampler)
    assert len(sampler) == len(numbers) == 20 and numbers == list(sampler)
    batches = torch.tensor(numbers).view(5, 4)
    assert (batches[:, :2] < 10).all() and (batches[:, 2:] >= 10).all()
    assert sorted(batches[:, :2].flatten().tolist()) == list(range(10))
    free = batches[:, 2:].flatten().tolist()
    sampler.set_epoch(1)
    later = list(sampler)
    free += torch.tensor(later).view(5, 4)[:, 2:].flatten().tolist()
    assert sorted(free[:14]) == sorted([*range(10, 17)] * 2)  # each once before any comes again
    assert later != numbers


def test_ranks_share_the_images(monkeypatch):
    found = []
    for rank in (0, 1):
        monkeypatch.setattr('mmkd.datasets.unlabelled.get_dist_info', lambda r=rank: (r, 2))
        found.append(list(MixedSampler(mixture(), 2, seed=0)))
    assert len(found[0]) == len(found[1]) == 10
    assert sorted(x for part in found for x in part[::2]) == list(range(10))


def test_batches_of_the_labelled_and_of_all_in_turn():
    """Tang et al.: 1:1; an epoch of as many images as there are."""
    sampler = AlternatingSampler(mixture(n=6, m=12), 4, seed=0)
    numbers = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        own = list(sampler)
        assert len(own) == len(sampler) == 20 and own == list(sampler)
        numbers.append(torch.tensor(own).view(5, 4))
    labelled = torch.cat([x[::2] for x in numbers]).flatten().tolist()
    union = torch.cat([x[1::2] for x in numbers]).flatten().tolist()
    assert [sorted(labelled[i : i + 6]) for i in range(0, 60, 6)] == [[*range(6)]] * 10
    assert [sorted(union[i : i + 18]) for i in (0, 18)] == [[*range(18)]] * 2
    assert labelled[:6] != labelled[6:12] and union[:18] != union[18:36]


def test_ranks_share_the_alternating_batches(monkeypatch):
    found = []
    for rank in (0, 1):
        monkeypatch.setattr('mmkd.datasets.unlabelled.get_dist_info', lambda r=rank: (r, 2))
        found.append(torch.tensor([*AlternatingSampler(mixture(8, 8), 2, seed=0)]).view(4, 2))
    both = torch.stack(found)
    assert sorted(both[:, ::2].flatten().tolist()) == list(range(8))
    assert len(set(both[:, 1::2].flatten().tolist())) == 8


def test_labels_are_dropped(tmp_path):
    for folder in ('a', '.thumbs'):
        (tmp_path / folder).mkdir()
    for name in ('b.jpg', 'a/c.png', 'd.txt', '._b.jpg', '.thumbs/e.jpg'):
        (tmp_path / name).touch()
    dataset = Unlabelled(dict(type='mmkd.ImageFolder', data_root=str(tmp_path), lazy_init=False))
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    assert [p.rpartition('/')[2] for p in paths] == ['c.png', 'b.jpg']
    _, samples = detection_batch(1)
    sample = without_labels(samples)[0]
    assert not sample.labelled and len(sample.gt_instances.bboxes) == 0
    _, samples = segmentation_batch(1)
    assert 'gt_sem_seg' not in without_labels(samples)[0]


def test_the_training_pipeline_of_a_segmentor(tmp_path):
    """It loads label maps, flips them and looks at their classes; there are none."""
    register_all_modules(init_default_scope=False)
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations', reduce_zero_label=True),
        dict(type='mmseg.RandomCrop', crop_size=(16, 16), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=1.0),
        dict(type='mmseg.PackSegInputs'),
    ]
    folder = ImageFolder(data_root=str(tmp_path), pipeline=pipeline)
    assert (folder[0]['data_samples'].gt_sem_seg.data == 255).all()
    sample = Unlabelled(folder)[0]['data_samples']
    assert 'gt_sem_seg' not in sample and not sample.labelled
    assert sample.img_shape == (16, 16) and folder[0]['inputs'].shape == (3, 16, 16)


# --------------------------------------------------------------------------------- bad input


def test_other_datasets_and_sizes(tmp_path):
    with pytest.raises(TypeError, match='takes a ConcatDataset of two'):
        MixedSampler(Numbers(3), 4)
    with pytest.raises(ValueError, match='batch_size must be a whole number of at least 2'):
        MixedSampler(mixture(), 1)
    with pytest.raises(TypeError, match='AlternatingSampler takes a ConcatDataset of two'):
        AlternatingSampler(Numbers(3), 4)
    with pytest.raises(TypeError, match='without wrappers, found a ConcatDataset'):
        Unlabelled(mixture())
    with pytest.raises(FileNotFoundError, match='there are no images in'):
        ImageFolder(data_root=str(tmp_path))


def test_a_run_without_any_label():
    objectives = dict(fgfi=FGFI(), cwd=CWD('neck'))
    nothing = Unlabelled(Numbers(3))
    with pytest.raises(ValueError, match='No image of the training set has labels, for which the'):
        check_listeners(objectives, nothing, tasks=True)
    with pytest.raises(ValueError, match=r'fgfi \(FGFI\) cannot do without. cwd can.'):
        check_listeners(objectives, nothing, tasks=False)
    with pytest.raises(ValueError, match='CWD, PKD and AT can, for instance'):
        check_listeners(dict(fgfi=FGFI()), nothing, tasks=False)
    check_listeners(dict(cwd=CWD('neck')), nothing, tasks=False)
    check_listeners(objectives, ConcatDataset([Numbers(3), nothing]), tasks=True)
    masked = CWD('neck')
    masked.mask_ignore = True
    assert listens_without_labels(CWD('neck')) and not listens_without_labels(masked)


def test_images_from_which_nobody_learns_are_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr('mmkd.unlabelled.print_log', lambda text, **_: said.append(text))
    mixed = ConcatDataset([Numbers(3), Unlabelled(Numbers(3))])
    check_listeners(dict(fgfi=FGFI(), cwd=CWD('neck')), mixed, tasks=True)
    check_listeners(dict(fgfi=FGFI()), Numbers(3), tasks=True)
    assert not said
    check_listeners(dict(fgfi=FGFI()), mixed, tasks=True)
    assert 'from the images without labels: fgfi (FGFI) cannot do without' in said[0]


def test_a_folder_of_images_that_is_not_marked_is_warned_of(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr('mmkd.unlabelled.print_log', lambda text, **_: said.append(text))
    (tmp_path / 'a.jpg').touch()
    folder = dict(type='mmkd.ImageFolder', data_root=str(tmp_path), pipeline=[])
    cwd = dict(cwd=CWD('neck'))
    for images in (Unlabelled(folder), DATASETS.build(folder)):
        mixed = ConcatDataset([Numbers(3), images])
        check_listeners(cwd, mixed, tasks=False)
        assert not said
        check_listeners(cwd, mixed, tasks=True)
    assert len(said) == 1 and 'learns its images as background' in said[0]


@pytest.mark.parametrize('kind', [MixedSampler, AlternatingSampler])
def test_batches_that_are_dealt_out_anew(kind):
    sampler = kind(mixture(), 4, seed=0)

    def loader(size, dataset=None):
        parts = dict(sampler=sampler, dataset=dataset or mixture())
        return type('Loader', (), dict(parts, batch_sampler=BatchSampler(sampler, size, False)))

    check_mixture(loader(4))
    with pytest.raises(ValueError, match='batches of 4, but the dataloader has batch_size=8'):
        check_mixture(loader(8))
    partly = ConcatDataset([Numbers(3), Unlabelled(Numbers(3))])
    if kind is MixedSampler:
        check_mixture(loader(4, partly))
    else:
        with pytest.raises(ValueError, match='batches that may have no labelled image'):
            check_mixture(loader(4, partly))


def test_other_samplers_in_several_processes(monkeypatch):
    partly = ConcatDataset([Numbers(3), Unlabelled(Numbers(3))])
    loader = type('Loader', (), dict(sampler=range(6), batch_sampler=[], dataset=partly))
    check_mixture(loader)
    monkeypatch.setattr('mmkd.unlabelled.get_world_size', lambda: 2)
    with pytest.raises(ValueError, match='Set sampler=dict\\(type=.mmkd.MixedSampler'):
        check_mixture(loader)
    loader.dataset = ConcatDataset([Unlabelled(Numbers(3)), Unlabelled(Numbers(3))])
    check_mixture(loader)
