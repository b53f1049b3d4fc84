# Cityscapes, PSPNet ResNet-101 to ResNet-18: nine methods with the released teacher.
names = ('at', 'cwd', 'cwd_features', 'cirkd', 'dist', 'ifvd', 'kd', 'skd', 'tsl')
methods = {name: f'mmkd::{name}_pspnet_r101_r18.py' for name in names}
seeds = [0, 1, 2]
