_base_ = ['mmdet::yolox/yolox_m_8xb8-300e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::yolox/yolox_l_8xb8-300e_coco.py', checkpoint='released'),
    objectives=dict(fgd=dict(type='mmkd.FGD', weight=dict(stop=285 / 300))),  # when mosaic does
)
