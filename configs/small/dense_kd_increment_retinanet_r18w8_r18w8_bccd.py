# White cells are added to red cells and platelets: labels of the new class, boxes and scores of the old detector of the old ones.
_base_ = ['retinanet_r18w8_bccd.py']

load_from = 'work_dirs/retinanet_r18w8_old_bccd'  # what fits: the class layer begins anew
new = dict(_base_.train_dataloader.dataset, indices=[*range(103, 205)])
new.update(metainfo=dict(classes=['WBC']), filter_cfg=dict(filter_empty_gt=False))
known = ['RBC', 'Platelets']
old = dict(type='CocoDataset', ann_file='work_dirs/pseudo_old_bccd/annotations.json')
old.update(metainfo=dict(classes=known), data_prefix=dict(img=f'{_base_.data_root}JPEGImages/'))
order = ['RBC', 'WBC', 'Platelets']
joined = dict(type='mmkd.JoinLabels', dataset=new, others=[old], classes=order)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=joined))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/retinanet_r18w8_old_bccd.py', checkpoint='last'),
    objectives=dict(dense_kd=dict(type='mmkd.DenseKD', class_map=[0, 2])),
    balance=0.3,  # at its full weight the new class is hardly learnt
)
