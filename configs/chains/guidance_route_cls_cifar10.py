# A teacher, the best route from it by short probes, and the student with this route.
config = 'mmkd::small/guidance_route_cls_r14w16_r8w8_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    search=dict(make=dict(type='mmkd.GuidanceRoutes', config=config), teacher='teacher'),
    student=dict(
        config=config,
        teacher='teacher',
        files={'model.objectives.guidance.routes': 'search'},
    ),
)
