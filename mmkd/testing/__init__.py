"""Toy networks, tiny real models, dummy batches and traces: for tests and for method authors.

trace = make_trace(student={'neck': [s]}, teacher={'neck': [t]}, samples=boxes([[0, 0, 8, 8]]))
loss = ready(MyObjective(), trace)(trace)
"""

from mmkd.testing.networks import (
    ToyHead,
    ToyNeck,
    ToyNet,
)
from mmkd.testing.samples import (
    boxes,
    class_labels,
    classification_batch,
    detection_batch,
    label_maps,
    pixels,
    segmentation_batch,
)
from mmkd.testing.shrinking import (
    shrink,
)
from mmkd.testing.tiny_cascade import (
    tiny_cascade_rcnn,
)
from mmkd.testing.tiny_mask2former import (
    tiny_mask2former,
)
from mmkd.testing.tiny_masks import (
    add_masks,
    mask_batch,
    tiny_cascade_mask_rcnn,
    tiny_mask_rcnn,
)
from mmkd.testing.tiny_models import (
    MEAN,
    STD,
    merged,
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_gfl,
    tiny_pspnet,
    tiny_retinanet,
    tiny_yolov3,
)
from mmkd.testing.tiny_queries import (
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_ddq,
    tiny_deformable_detr,
    tiny_dino,
)
from mmkd.testing.tiny_weak import (
    tiny_weak,
    weak_batch,
)
from mmkd.testing.traces import (
    levels_of,
    make_trace,
    ready,
)

__all__ = [
    'MEAN',
    'STD',
    'ToyHead',
    'ToyNeck',
    'ToyNet',
    'add_masks',
    'boxes',
    'class_labels',
    'classification_batch',
    'detection_batch',
    'label_maps',
    'levels_of',
    'make_trace',
    'mask_batch',
    'merged',
    'pixels',
    'ready',
    'segmentation_batch',
    'shrink',
    'tiny_cascade_mask_rcnn',
    'tiny_cascade_rcnn',
    'tiny_classifier',
    'tiny_conditional_detr',
    'tiny_dab_detr',
    'tiny_ddq',
    'tiny_deformable_detr',
    'tiny_detr',
    'tiny_dino',
    'tiny_faster_rcnn',
    'tiny_fcos',
    'tiny_gfl',
    'tiny_mask2former',
    'tiny_mask_rcnn',
    'tiny_pspnet',
    'tiny_retinanet',
    'tiny_weak',
    'tiny_yolov3',
    'weak_batch',
]
