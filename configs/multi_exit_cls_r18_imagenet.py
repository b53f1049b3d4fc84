# Four exits: scale 10 / 4 and c 0.5, so that the last exit's own loss has the factor 1.25.
_base_ = ['cls_r18_imagenet.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(multi_exit=dict(type='mmkd.MultiExit')),
    task_weight=1.25,
)
