# Cross-modal transfer: the backbone of a student for grey images, from a teacher that sees colours, without labels.
_base_ = ['pspnet_r18w8_grey_camvid.py']

pack = _base_.train_pipeline.pop()
_base_.train_pipeline.insert(-1, dict(type='mmkd.KeepView', name='rgb'))
_base_.train_pipeline.append(dict(type='mmkd.PackViews', pack=pack))
images = dict(_base_.train_dataloader.dataset, pipeline=_base_.train_pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, type='mmkd.Unlabelled', dataset=images))
val_dataloader = val_evaluator = val_cfg = None  # the head learns later
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/pspnet_r18w32_camvid.py', checkpoint='last', view='rgb'),
    objectives=dict(fitnet=dict(type='mmkd.FitNet', student='backbone[-1]', adapt='conv1x1')),
    task_weight=None,
)
