# MSAD on COCO: FCOS learns from two sizes of an image, then one on the smaller size from it.
stages = dict(
    teacher=dict(config='mmkd::scale_fusion_fcos_r50.py'),
    student=dict(config='mmkd::fitnet_msad_fcos_r50.py', teacher='teacher'),
)
