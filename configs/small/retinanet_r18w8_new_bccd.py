# White cells alone on the second half of the images, where nobody has marked red cells and platelets.
_base_ = ['retinanet_r18w8_bccd.py']

new = dict(classes=('WBC',), palette=[(70, 110, 220)])
half = dict(metainfo=new, indices=[*range(103, 205)], filter_cfg=dict(filter_empty_gt=False))
model = dict(bbox_head=dict(num_classes=1))
train_dataloader = dict(dataset=half)
val_dataloader = dict(dataset=dict(metainfo=new))
test_dataloader = val_dataloader
