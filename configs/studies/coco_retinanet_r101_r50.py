# COCO, RetinaNet ResNet-101 to ResNet-50: eight methods with the released teacher.
names = ('crosskd', 'cwd', 'dense_kd', 'fbkd', 'fgd', 'gid', 'mgd', 'pkd')
methods = {name: f'mmkd::{name}_retinanet_r101_r50.py' for name in names}
seeds = [0, 1]
