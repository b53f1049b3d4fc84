_base_ = ['cls_r18_imagenet.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(one=dict(type='mmkd.ONE')),
)
