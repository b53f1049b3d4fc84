"""Annotations as objects, masks and label maps."""

import numpy as np
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmkd.visualization import canvas
from mmkd.visualization.shown import PANEL, Shown
from mmkd.visualization.truth import annotated_map, annotated_objects, ground_truth, name_of


def shown(**fields):
    sample = BaseDataElement(metainfo=dict(img_shape=(40, 60)))
    sample.set_data(fields)
    image = np.full((40, 60, 3), 128, np.uint8)
    return Shown(image, sample, 0, (64, 64), ('disc', 'ring'), [(255, 0, 0), (0, 255, 0)])


def test_an_image_without_annotations_is_shown_as_it_is():
    for one in (shown(), shown(gt_instances=InstanceData())):
        assert annotated_objects(one) is None and annotated_map(one) is None
        assert (ground_truth(one) == 128).all() and ground_truth(one).shape[1] == PANEL


def test_the_caption_says_what_is_not_annotated():
    nothing, labels = shown(gt_instances=InstanceData()), torch.tensor([1])
    assert name_of(shown()) == name_of(nothing) == f'{nothing.name}, no annotations loaded'
    found = InstanceData(bboxes=torch.tensor([[20.0, 10, 40, 30]]), labels=labels)
    one = shown(gt_instances=found)
    assert name_of(one) == one.name
    one.sample.set_metainfo(dict(labelled=False))
    assert name_of(one) == f'{one.name}, without labels'
    assert name_of(shown(gt_instances=InstanceData(labels=labels))).endswith(': ring')


def test_boxes_of_mmdet_and_masks_of_the_padded_batch():
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 10:30, 20:40] = 1
    found = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[20.0, 10, 40, 30]])),
        labels=torch.tensor([1]),
        masks=BitmapMasks(mask, 64, 64),
    )
    one = shown(gt_instances=found)
    objects = annotated_objects(one)
    assert objects.boxes.tolist() == [[20, 10, 40, 30]] and objects.labels == [1]
    assert objects.masks[0].shape == (40, 60) and objects.masks[0].sum() == 400
    picture = ground_truth(one, width=60)
    blue, green, red = picture[25, 30].tolist()
    assert green > 150 and blue < 100 and red < 100  # the mask's class, over the image


def test_label_maps_of_both_packages():
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, 20:] = 1
    labels[:, :, 50:] = 255
    pictures = []
    for field in ('data', 'sem_seg'):
        one = shown(gt_sem_seg=PixelData(**{field: labels}))
        assert annotated_map(one).shape == (40, 60)
        pictures.append(ground_truth(one, width=60))
    np.testing.assert_array_equal(*pictures)
    above, below, ignored = (pictures[0][y, x].astype(int) for y, x in ((5, 5), (30, 5), (5, 55)))
    assert above[2] > above[1] and below[1] > below[2]
    np.testing.assert_array_equal(ignored, canvas.faded(one.image)[5, 55])
