_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::mask2former/mask2former_r101_8xb2-lsj-50e_coco.py',
        checkpoint='released',
    ),
    objectives=dict(masks=dict(type='mmkd.MatchedMasks')),
)
