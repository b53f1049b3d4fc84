_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']
# The student trains and is scored on images of half the size; its teacher sees the full ones.
_base_.model.data_preprocessor.batch_augments = [dict(type='mmkd.HalfScale')]
_base_.test_pipeline[1].scale = (667, 400)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
        checkpoint='released',
    ),
    objectives=dict(pkd=dict(type='mmkd.PKD', level_map='common')),
)
