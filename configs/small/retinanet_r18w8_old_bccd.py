# Red cells and platelets on the first half of the images, before dense_kd_increment_retinanet_r18w8_r18w8_bccd.py adds white cells.
_base_ = ['retinanet_r18w8_bccd.py']

old = dict(classes=('RBC', 'Platelets'), palette=[(220, 70, 70), (240, 190, 60)])
half = dict(_base_.train_dataloader.dataset, metainfo=old, indices=103)
model = dict(bbox_head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=half))
val_dataloader = dict(dataset=dict(metainfo=old))
test_dataloader = val_dataloader
