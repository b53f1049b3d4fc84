# Two-stage mimic: features without a box head first, as in the paper, then class and box outputs.
no_box_head = {'model.task_weight': dict(loss_cls=0, loss_bbox=0)}
stages = dict(
    features=dict(config='mmkd::mimic_frcnn_r101_r50.py', options=no_box_head),
    student=dict(config='mmkd::mimic_head_frcnn_r101_r50.py', student='features'),
)
