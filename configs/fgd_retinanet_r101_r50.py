_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']

teacher = 'mmdet::retinanet/retinanet_r101_fpn_1x_coco.py'
checkpoint = f'released://{teacher}'
# As published, the student begins with the teacher's neck and head.
_base_.model.neck.init_cfg = dict(type='Pretrained', prefix='neck', checkpoint=checkpoint)
_base_.model.bbox_head.init_cfg = dict(type='Pretrained', prefix='bbox_head', checkpoint=checkpoint)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config=teacher, checkpoint=checkpoint),
    objectives=dict(fgd=dict(type='mmkd.FGD')),
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
