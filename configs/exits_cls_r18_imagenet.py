# Any exit of a ResNet-18 that was trained with BYOT or MultiExit: `mmkd test` this and a checkpoint
# of that run. model.edits.0.use=0 ends behind the first stage, ='mean' predicts with all exits.
_base_ = ['cls_r18_imagenet.py']

model = dict(
    _delete_=True,
    type='mmkd.Edited',
    model=_base_.model,
    edits=[dict(type='mmkd.Exits')],
)
test_evaluator = dict(exits=True)
