# Second phase of FSP: the task alone.
_base_ = ['cls_r8w8_cifar10.py']

load_from = 'work_dirs/fsp_init_cls_r14w16_r8w8_cifar10'
