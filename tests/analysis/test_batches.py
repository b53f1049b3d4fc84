"""Batches without data, of the kind that a model trains on."""

import torch
from torch import nn

from mmkd.analysis.batches import random_batch
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_pspnet, tiny_retinanet, tiny_weak

SIZE = (48, 64)


def test_boxes_lie_in_their_images():
    model = build_model(tiny_retinanet(4))
    inputs, samples = random_batch(model, SIZE, 3, 5)
    assert inputs.shape == (3, 3, *SIZE) and len(samples) == 3
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        assert boxes.shape == (5, 4) and (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([64.0, 48.0]) + 1e-4).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > 3).all() and sample.img_shape == SIZE
        assert not sample.gt_instances.labels.any()
    again = random_batch(model, SIZE, 3, 5)[0]
    assert torch.equal(inputs, again), 'always the same'
    assert not random_batch(model, SIZE, 1, 0)[1][0].gt_instances.bboxes.numel()


def test_labels_and_edges_of_pixels():
    _, (sample,) = random_batch(build_model(tiny_pspnet(4)), SIZE, 1, 0)
    labels, edges = sample.gt_sem_seg.data[0], sample.gt_edge_map.data[0]
    assert labels.shape == edges.shape == SIZE and set(labels.unique().tolist()) <= {0, 1, 2}
    for y, x in ((10, 10), (30, 50), (47, 63)):
        changes = labels[y, x] != labels[y - 1, x] or labels[y, x] != labels[y, x - 1]
        assert bool(edges[y, x]) == bool(changes)
    assert edges.any() and not edges.all()


def test_a_binary_segmentor_has_two_labels():
    binary = tiny_pspnet(4, num_classes=2, decode_head=dict(out_channels=1, threshold=0.3))
    _, (sample,) = random_batch(build_model(binary), SIZE, 1, 0)
    assert set(sample.gt_sem_seg.data.unique().tolist()) == {0, 1}


def test_classes_of_the_second_half_repeat_those_of_the_first():
    _, samples = random_batch(build_model(tiny_classifier()), SIZE, 6, 0)
    assert [int(s.gt_label) for s in samples] == [0, 1, 2, 0, 1, 2]
    assert [s.sample_idx for s in samples] == [0, 1, 2, 3, 4, 5]


def test_detectors_of_image_labels_get_proposals():
    model = build_model(tiny_weak(4)).eval()
    inputs, samples = random_batch(model, SIZE, 2, 1)
    proposals = samples[0].proposals
    assert torch.equal(proposals.bboxes[:1], samples[0].gt_instances.bboxes)
    assert len(proposals) == 301 and 0 <= proposals.scores.min() <= proposals.scores.max() < 1
    assert model(inputs, samples, mode='loss')['loss_mil'].isfinite()


class MaskHead(nn.Module):
    pass


def test_masks_are_the_boxes():
    model = build_model(tiny_retinanet(4))
    model.mask_head = MaskHead()
    _, (sample,) = random_batch(model, SIZE, 1, 2)
    box, mask = sample.gt_instances.bboxes[0].long().tolist(), sample.gt_instances.masks.masks[0]
    assert mask.shape == SIZE and mask[box[1] : box[3] + 1, box[0] : box[2] + 1].all()
    assert mask.sum() == (box[3] + 1 - box[1]) * (box[2] + 1 - box[0])


def test_grey_images():
    model = tiny_pspnet(4)
    model['backbone'].update(in_channels=1)
    model['data_preprocessor'].update(mean=None, std=None, bgr_to_rgb=False)
    assert random_batch(build_model(model), SIZE, 2, 0)[0].shape == (2, 1, *SIZE)


class PanopticHead(nn.Module):
    def __init__(self, things, stuff):
        super().__init__()
        self.num_things_classes, self.num_stuff_classes = things, stuff
        self.num_classes = things + stuff
        self.cls_embed, self.mask_embed = nn.Linear(4, self.num_classes + 1), nn.Identity()


def test_heads_of_masks_have_objects_and_a_label_map_of_what_is_stuff():
    model = nn.Module()
    model.conv = nn.Conv2d(3, 4, 1)
    model.panoptic_head = PanopticHead(2, 3)
    _, (sample,) = random_batch(model, SIZE, 1, 2)
    assert sample.gt_instances.masks.masks.shape == (2, *SIZE)
    assert set(sample.gt_sem_seg.sem_seg.unique().tolist()) == {0, 1, 2, 3, 4}
    model.panoptic_head = PanopticHead(2, 0)
    _, (sample,) = random_batch(model, SIZE, 1, 2)
    assert len(sample.gt_instances.masks) == 2 and 'gt_sem_seg' not in sample
