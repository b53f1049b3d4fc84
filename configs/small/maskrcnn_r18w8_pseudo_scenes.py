# 60 scenes with their labels and 240 with masks of `mmkd make PseudoLabels`, as in ../chains/data_distillation_maskrcnn_scenes.py
_base_ = ['maskrcnn_r18w8_scenes.py']

known = dict(_base_.train_dataloader.dataset, indices=60)
pseudo = dict(
    known, data_root='', ann_file='work_dirs/pseudo_scenes/annotations.json', indices=None
)
pseudo.update(data_prefix=dict(img=f'{_base_.data_root}train/'))
both = dict(type='ConcatDataset', datasets=[known, pseudo])
train_dataloader = dict(dataset=dict(_delete_=True, **both))
