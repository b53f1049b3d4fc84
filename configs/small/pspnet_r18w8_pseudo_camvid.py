# 74 images with their labels and 293 with those of `mmkd make PseudoLabels`, as in ../chains/data_distillation_pspnet_camvid.py
_base_ = ['pspnet_r18w8_camvid.py']

known = dict(_base_.train_dataloader.dataset, indices=[*range(0, 367, 5)])
pseudo = dict(_base_.train_dataloader.dataset, indices=[i for i in range(367) if i % 5])
folders = dict(img_path=f'{_base_.data_root}img_dir/train')
pseudo.update(data_root='', data_prefix=dict(folders, seg_map_path='work_dirs/pseudo_camvid/masks'))
both = dict(type='ConcatDataset', datasets=[known, pseudo])
train_dataloader = dict(dataset=dict(_delete_=True, **both))
