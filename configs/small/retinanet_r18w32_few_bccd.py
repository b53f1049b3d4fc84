# The teacher of retinanet_r18w32_bccd.py on the first 51 of 205 images, as many steps as on all.
_base_ = ['retinanet_r18w32_bccd.py']

few = dict(_base_.train_dataloader.dataset, indices=51)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=4, dataset=few))
