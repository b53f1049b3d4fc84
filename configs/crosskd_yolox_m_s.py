# mmdet releases no weights of YOLOX-m: train its config first, or name a checkpoint of your own.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::yolox/yolox_m_8xb8-300e_coco.py', checkpoint='last'),
    objectives=dict(crosskd=dict(type='mmkd.CrossKD')),
)
