# KA: the auto-encoder learns on the teacher, then the student learns its codes.
stages = dict(
    teacher=dict(config='mmkd::small/pspnet_r18w32_camvid.py'),
    codes=dict(
        config='mmkd::small/ka_autoencoder_pspnet_r18w32_r18w8_camvid.py', teacher='teacher'
    ),
    student=dict(
        config='mmkd::small/ka_pspnet_r18w32_r18w8_camvid.py', teacher='teacher', objectives='codes'
    ),
)
