# Data distillation: a teacher on few labels, its boxes on the other images, and a student on both.
rest = 'mmkd::small/retinanet_r18w8_rest_bccd.py'
few = 'mmkd::small/retinanet_r18w8_few_bccd.py'
views = dict(scales=[0.75, 1.0, 1.25], threshold='match', labelled=few)
stages = dict(
    teacher=dict(config='mmkd::small/retinanet_r18w32_few_bccd.py'),
    labels=dict(make=dict(type='mmkd.PseudoLabels', images=rest, **views), teacher='teacher'),
    student=dict(
        config='mmkd::small/dense_kd_adl_retinanet_r18w32_r18w8_bccd.py',
        teacher='teacher',
        files={'train_dataloader.dataset.datasets.1.ann_file': 'labels'},
    ),
)
