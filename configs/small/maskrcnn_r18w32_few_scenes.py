# The teacher of maskrcnn_r18w32_scenes.py on the first 60 of 300 scenes, a fifth, as many steps as on all.
_base_ = ['maskrcnn_r18w32_scenes.py']

few = dict(_base_.train_dataloader.dataset, indices=60)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=5, dataset=few))
