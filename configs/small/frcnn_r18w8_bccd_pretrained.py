# The student of the BCCD protocol on the distilled backbone of dkd_cls_r18w32_r18w8_cifar10.py.
_base_ = ['frcnn_r18w8_bccd.py']

pretrained = 'work_dirs/dkd_cls_r18w32_r18w8_cifar10'
init = dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')
model = dict(backbone=dict(init_cfg=dict(_delete_=True, **init)))
