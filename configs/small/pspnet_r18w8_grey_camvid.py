# The student of the CamVid protocol on grey images.
_base_ = ['pspnet_r18w8_camvid.py']

grey = dict(type='RandomGrayscale', prob=1.0, keep_channels=True)
_base_.train_pipeline.insert(-1, grey)
_base_.test_pipeline.insert(-1, grey)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
