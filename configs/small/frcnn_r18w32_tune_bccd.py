# A sixth of the schedule at a tenth of the learning rate, for a trained teacher whose map was rounded.
_base_ = ['frcnn_r18w32_bccd.py']

train_cfg = dict(max_epochs=2, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=0,
        end=2,
        T_max=2,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
