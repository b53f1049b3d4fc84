# COCO, Faster R-CNN ResNet-101 to ResNet-50: nine methods with the released teacher.
names = ('cwd', 'fbkd', 'fgd', 'fgfi', 'gid', 'mgd', 'mimic', 'pkd', 'rkd')
methods = {name: f'mmkd::{name}_frcnn_r101_r50.py' for name in names}
seeds = [0, 1]
