# A new class for a detector: it learns two, marks them on the images of the third, and teaches the next on both.
old = 'mmkd::small/retinanet_r18w8_old_bccd.py'
images = 'mmkd::small/retinanet_r18w8_new_bccd.py'
labels = dict(type='mmkd.PseudoLabels', images=images, threshold='match', labelled=old)
stages = dict(
    old=dict(config=old),
    labels=dict(make=labels, teacher='old'),
    new=dict(
        config='mmkd::small/dense_kd_increment_retinanet_r18w8_r18w8_bccd.py',
        teacher='old',
        files={
            'load_from': 'old',
            'train_dataloader.dataset.dataset.others.0.ann_file': 'labels',
        },
    ),
)
