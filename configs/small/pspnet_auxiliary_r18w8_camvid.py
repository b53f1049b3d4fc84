# The student of the CamVid protocol with mmseg's usual auxiliary head, on the stage before the last.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    auxiliary_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=32,
        in_index=2,
        channels=16,
        num_convs=1,
        concat_input=False,
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', loss_weight=0.4, class_weight=_base_.class_weight
        ),
    ),
)
