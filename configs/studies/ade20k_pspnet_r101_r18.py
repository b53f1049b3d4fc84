# ADE20K, PSPNet ResNet-101 to ResNet-18, with the released teacher.
names = ('cwd', 'skd_pixel')
methods = {name: f'mmkd::{name}_pspnet_r101_r18_ade20k.py' for name in names}
seeds = [0, 1]
