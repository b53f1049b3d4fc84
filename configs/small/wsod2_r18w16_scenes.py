_base_ = ['../_base_/scenes_mil.py']
# Superpixels are made of the original image, in front of RandomFlip.
_base_.train_pipeline.insert(2, dict(type='mmkd.Superpixels'))
_base_.model.roi_head.update(refinements=3, boxes=True, seeds='wsod2')
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(wsod2=dict(type='mmkd.WSOD2')),
    task_weight=dict(loss_refine=0, loss_box=0),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
