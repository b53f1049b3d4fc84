# The student of pspnet_r18w8_camvid.py on every fifth of 367 images, as many steps as on all.
_base_ = ['pspnet_r18w8_camvid.py']

few = dict(_base_.train_dataloader.dataset, indices=[*range(0, 367, 5)])
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=5, dataset=few))
