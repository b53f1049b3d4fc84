# VOC 2007 + 2012, Faster R-CNN ResNet-50 to ResNet-18, with the released teacher.
names = ('fgfi', 'chen2017')
methods = {name: f'mmkd::{name}_frcnn_r50_r18_voc0712.py' for name in names}
seeds = [0, 1, 2]
