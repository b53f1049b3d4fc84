# A vision transformer of 6 x 6 patches, in the place of a foundation model.
_base_ = ['../_base_/cifar10_48.py']

vit = dict(type='mmseg.VisionTransformer', img_size=48, patch_size=8, embed_dims=96, num_layers=6)
vit.update(num_heads=3, mlp_ratio=2, final_norm=True, drop_path_rate=0.1, norm_cfg=dict(type='LN'))
model = dict(backbone=dict(_delete_=True, **vit))
train_cfg = dict(max_epochs=40, val_interval=10)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=40, by_epoch=True)
