# 41 images with their labels and 164 with those of `mmkd make PseudoLabels`, as in ../chains/data_distillation_retinanet_bccd.py
_base_ = ['retinanet_r18w8_bccd.py']

known = dict(_base_.train_dataloader.dataset, indices=41)
pseudo = dict(type='CocoDataset', ann_file='work_dirs/pseudo_bccd/annotations.json')
pseudo.update(
    data_prefix=dict(img=f'{_base_.data_root}JPEGImages/'), filter_cfg=known['filter_cfg']
)
pseudo.update(pipeline=_base_.train_pipeline, metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
both = dict(type='ConcatDataset', datasets=[known, pseudo], ignore_keys=['palette'])
train_dataloader = dict(dataset=dict(_delete_=True, **both))
