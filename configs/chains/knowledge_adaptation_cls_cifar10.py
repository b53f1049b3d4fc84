# A teacher, the images of the student's domain on which it is trusted, and the student, without labels.
config = 'mmkd::small/knowledge_adaptation_cls_r14w16_r8w8_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    trust=dict(make=dict(type='mmkd.TrustedImages', target=config, size=16), teacher='teacher'),
    student=dict(
        config=config,
        teacher='teacher',
        files={'model.objectives.knowledge_adaptation.trusted': 'trust'},
    ),
)
