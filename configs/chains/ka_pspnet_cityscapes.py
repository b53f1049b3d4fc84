# KA with the released teacher: the auto-encoder learns on it, then the student learns its codes.
stages = dict(
    codes=dict(config='mmkd::ka_autoencoder_pspnet_r101_r18.py'),
    student=dict(config='mmkd::ka_pspnet_r101_r18.py', objectives='codes'),
)
