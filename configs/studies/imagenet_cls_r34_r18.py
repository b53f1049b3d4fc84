# ImageNet, ResNet-34 to ResNet-18, with the released teacher.
names = ('kd', 'dkd')
methods = {name: f'mmkd::{name}_cls_r34_r18.py' for name in names}
seeds = [0]
