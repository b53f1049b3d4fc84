# The teacher of retinanet_r18w32_bccd.py on the first 41 of 205 images, a fifth, as many steps as on all.
_base_ = ['retinanet_r18w32_bccd.py']

few = dict(_base_.train_dataloader.dataset, indices=41)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=5, dataset=few))
