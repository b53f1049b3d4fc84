# Data distillation of a segmentor: a teacher on few labels, its label maps of the other images, a student on both.
rest = 'mmkd::small/pspnet_r18w8_rest_camvid.py'
stages = dict(
    teacher=dict(config='mmkd::small/pspnet_r18w32_few_camvid.py'),
    labels=dict(
        make=dict(type='mmkd.PseudoLabels', images=rest, scales=[0.75, 1.0, 1.25], threshold=0.5),
        teacher='teacher',
    ),
    student=dict(
        config='mmkd::small/pspnet_r18w8_pseudo_camvid.py',
        files={'train_dataloader.dataset.datasets.1.data_prefix.seg_map_path': 'labels'},
    ),
)
