"""Data samples and batches out of nothing."""

import torch

from mmkd.testing import (
    boxes,
    class_labels,
    classification_batch,
    detection_batch,
    label_maps,
    pixels,
    segmentation_batch,
)


def test_boxes_of_each_image():
    one, none = boxes([[0, 0, 8, 8], [1, 2, 3, 4]], [], size=(32, 48))
    assert one.gt_instances.bboxes.tolist() == [[0, 0, 8, 8], [1, 2, 3, 4]]
    assert one.gt_instances.labels.tolist() == [0, 1] and one.img_shape == (32, 48)
    assert none.gt_instances.bboxes.shape == (0, 4) and none.img_id == 1
    assert one.ignored_instances.bboxes.shape == (0, 4)


def test_label_maps_and_class_labels():
    labels = torch.arange(24).view(2, 3, 4)
    assert torch.equal(label_maps(labels)[1].gt_sem_seg.data[0], labels[1])
    first, second = class_labels(torch.tensor([4, 2]))
    assert second.gt_label.tolist() == [2] and (first.sample_idx, second.sample_idx) == (0, 1)


def test_objects_lie_in_their_images():
    inputs, samples = detection_batch(3, (64, 96), objects=4)
    assert inputs.shape == (3, 3, 64, 96)
    for sample in samples:
        found = sample.gt_instances.bboxes
        assert len(found) == 4 and (found >= 0).all() and (found[:, 2:] > found[:, :2]).all()
        assert (found[:, 2:] <= torch.tensor([96.0, 64.0])).all()


def test_the_last_rows_of_a_segmentation_batch_are_to_be_ignored():
    _, samples = segmentation_batch(2, num_classes=4)
    for sample in samples:
        labels = sample.gt_sem_seg.data[0]
        assert (labels[-8:] == 255).all() and labels[:-8].max() < 4


def test_classes_repeat_in_the_second_half():
    _, samples = classification_batch(6, num_classes=3)
    assert [int(s.gt_label) for s in samples] == [0, 1, 2, 0, 1, 2]
    assert len(classification_batch(1)[1]) == 1


def test_seeds():
    assert torch.equal(pixels(seed=3), pixels(seed=3)) and not torch.equal(pixels(), pixels(seed=1))
