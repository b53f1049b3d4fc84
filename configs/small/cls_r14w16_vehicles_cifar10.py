# A specialist: vehicles, and a dustbin for all others, from the generalist's weights; half of the images are vehicles.
_base_ = ['cls_r14w16_cifar10.py']

load_from = 'work_dirs/cls_r14w16_cifar10'
model = dict(num_classes=5)
data = dict(type='mmkd.SpecialistClasses', classes=['airplane', 'automobile', 'ship', 'truck'])
train_dataloader = dict(
    dataset=dict(_delete_=True, **data, dataset=_base_.train_dataloader.dataset)
)
val_dataloader = dict(
    dataset=dict(_delete_=True, **data, balanced=False, dataset=_base_.val_dataloader.dataset)
)
test_dataloader = val_dataloader
