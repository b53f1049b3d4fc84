# Cross-modal transfer without labels, then tuning on labels: grey images from a teacher of colours.
stages = dict(
    teacher=dict(config='mmkd::small/pspnet_r18w32_camvid.py'),
    transfer=dict(
        config='mmkd::small/fitnet_grey_pspnet_r18w32_r18w8_camvid.py', teacher='teacher'
    ),
    tune=dict(config='mmkd::small/pspnet_r18w8_grey_camvid.py', student='transfer'),
)
