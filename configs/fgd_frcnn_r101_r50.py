_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']
teacher = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py'
checkpoint = f'released://{teacher}'
# As published, the student begins with the teacher's neck and head.
_base_.model.neck.init_cfg = dict(type='Pretrained', prefix='neck', checkpoint=checkpoint)
_base_.model.rpn_head.init_cfg = dict(type='Pretrained', prefix='rpn_head', checkpoint=checkpoint)
_base_.model.roi_head.init_cfg = dict(type='Pretrained', prefix='roi_head', checkpoint=checkpoint)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config=teacher, checkpoint=checkpoint),
    objectives=dict(fgd=dict(type='mmkd.FGD')),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
