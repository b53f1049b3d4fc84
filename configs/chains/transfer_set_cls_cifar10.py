# Compression by pseudo labels (Bucilua et al., KDD 2006): a student of 2,000 images learns on 8,000 that are made of them.
_few = 'mmkd::small/cls_r8w8_few_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    images=dict(make=dict(type='mmkd.TransferSet', config=_few, copies=4), teacher='teacher'),
    student=dict(
        config='mmkd::small/kd_patches_cls_r14w16_r8w8_cifar10.py',
        teacher='teacher',
        files={'train_dataloader.dataset.dataset.manifest': 'images'},
    ),
)
