# VGG-8 of width 16, a teacher of another depth than the ResNets.
_base_ = ['../_base_/cifar10_folders.py']

model = dict(backbone=dict(type='mmkd.CifarVGG', depth=8, base_channels=16))
