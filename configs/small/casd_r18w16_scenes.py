_base_ = ['../_base_/scenes_mil.py']
# As in the paper two refinements and four views of each image. But OICR's seeds: with those of PCL a proposal far from
# every seed is left out, and of so few proposals most are never taught to be background.
_base_.model.views = ['flip', 'scale', 'both']
_base_.model.roi_head.update(refinements=2)
_base_.model.backbone.frozen_stages = 1  # layers that are compared must learn
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(casd=dict(type='mmkd.CASD')),
)
