# Data distillation with masks: a teacher on few labels, its instances on the other scenes, a student on both.
rest = 'mmkd::small/maskrcnn_r18w8_rest_scenes.py'
few = 'mmkd::small/maskrcnn_r18w8_few_scenes.py'
stages = dict(
    teacher=dict(config='mmkd::small/maskrcnn_r18w32_few_scenes.py'),
    labels=dict(
        make=dict(type='mmkd.PseudoLabels', images=rest, threshold='match', labelled=few),
        teacher='teacher',
    ),
    student=dict(
        config='mmkd::small/maskrcnn_r18w8_pseudo_scenes.py',
        files={'train_dataloader.dataset.datasets.1.ann_file': 'labels'},
    ),
)
