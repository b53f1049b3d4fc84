_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py', checkpoint='released'),
    objectives=dict(crosskd=dict(type='mmkd.CrossKD')),
)
