# Data-free (DeepInversion, CVPR 2020): 2,048 images are made of the teacher alone, and the student learns its answers to them.
_made = dict(type='mmkd.Inversion', size=16, count=2048, batch=256, steps=500)
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    images=dict(make=_made, teacher='teacher'),
    student=dict(
        config='mmkd::small/kd_inverted_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        files={'train_dataloader.dataset.dataset.manifest': 'images'},
    ),
)
