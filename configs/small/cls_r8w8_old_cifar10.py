# Eight of the ten classes of CIFAR-10, before kd_increment_cls_r8w8_r8w8_cifar10.py adds the others.
_base_ = ['cls_r8w8_cifar10.py']

old = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse')
model = dict(num_classes=8)
train_dataloader = dict(dataset=dict(metainfo=dict(classes=old)))
val_dataloader = dict(dataset=dict(metainfo=dict(classes=old)))
test_dataloader = val_dataloader
