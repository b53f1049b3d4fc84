_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py']
# Levels from P2 on, so that every one of P3 to P7 is fused with one of the small image.
_base_.model.data_preprocessor.pad_size_divisor = 256
_base_.model.neck.update(start_level=0, num_outs=6)
edges = [-1, 32, 64, 128, 256, 512, 1e8]
_base_.model.bbox_head.update(
    strides=[4, 8, 16, 32, 64, 128],
    regress_ranges=tuple(zip(edges[:-1], edges[1:], strict=True)),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(scale_fusion=dict(type='mmkd.ScaleFusion')),
)
