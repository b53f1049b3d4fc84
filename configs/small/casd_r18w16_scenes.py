_base_ = ['../_base_/scenes_mil.py']
# As in the paper two refinements and four views of each image, with the seeds of PCL.
_base_.model.views = ['flip', 'scale', 'both']
_base_.model.roi_head.update(refinements=2, seeds='casd')
_base_.model.backbone.frozen_stages = 1  # layers that are compared must learn
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(casd=dict(type='mmkd.CASD')),
)
