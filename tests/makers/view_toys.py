"""Networks that see what is bright, so that their answers for any view are known."""

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import nn

SIZE = (40, 60)  # H, W of an image
BOX = (10, 8, 30, 20)


def picture(path, box=BOX, size=SIZE):
    """Black, with one white box."""
    image = np.zeros((*size, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    cv2.imwrite(str(path), image)
    return str(path)


def config(pack='mmdet.PackDetInputs', resize=True):
    pipeline = [dict(type='LoadImageFromFile')]
    pipeline += [dict(type='Resize', scale=(60, 40), keep_ratio=False)] * resize
    pipeline += [dict(type='LoadAnnotations'), dict(type=pack)]
    pipeline[-1] |= dict(meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip'))
    dataset = dict(type='RepeatDataset', dataset=dict(type='x', pipeline=pipeline))
    return Config(dict(test_dataloader=dict(dataset=dataset), default_scope=pack.partition('.')[0]))


class Bright(nn.Module):
    """Finds the box of what is brighter than half, in pixels of the file."""

    def __init__(self, masks=False):
        super().__init__()
        self.seen, self.masks = [], masks

    def test_step(self, data):
        (image,), (sample,) = data['inputs'], data['data_samples']
        self.seen.append(tuple(image.shape[1:]))
        rows, columns = torch.where(image[0] > 127)
        factors = np.resize(sample.metainfo.get('scale_factor', (1, 1)), 2)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        box = torch.tensor([[float(v) / f for v, f in zip(corners, [*factors] * 2, strict=True)]])
        score = torch.tensor([0.9 if image.shape[1] == SIZE[0] else 0.6])
        sample.pred_instances = InstanceData(bboxes=box, scores=score, labels=torch.tensor([1]))
        if self.masks:  # as mmdet's: of the file's size
            whole = nn.functional.interpolate(image[None, :1].float(), SIZE, mode='area')[0]
            sample.pred_instances.masks = whole > 127
        return [sample]


class BrightPixels(nn.Module):
    """Class 1 where it is bright, at the size of the file; sure where it is white."""

    def test_step(self, data):
        (image,), (sample,) = data['inputs'], data['data_samples']
        logits = image.float().mean(0)[None] / 255 * 8 - 4
        sample.seg_logits = PixelData(data=torch.cat((-logits, logits)))
        return [sample]
