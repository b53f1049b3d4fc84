# Four checkpoints of the teacher's own training, a quarter of the run each.
# Train the teacher with --cfg-options default_hooks.checkpoint.max_keep_ckpts=-1, which keeps all.
_base_ = ['pspnet_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Anchors', config='mmkd::small/pspnet_r18w32_camvid.py', anchors=4),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
