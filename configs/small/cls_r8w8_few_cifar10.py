# The student of the CIFAR-10 protocol on a fifth of the images, 200 of each class.
_base_ = ['cls_r8w8_cifar10.py']

few = dict(type='mmkd.Shard', dataset=_base_.train_dataloader.dataset, index=0, of=5)
train_dataloader = dict(dataset=dict(_delete_=True, **few))
