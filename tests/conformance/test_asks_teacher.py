"""Methods that run parts of the teacher again say so; an ensemble or a black box refuses them."""

import copy

from cases import batch, build, method, pairs


def test_every_method_that_asks_says_so():
    unsaid = []
    for name, family in pairs():
        distiller = build(name, family)
        objective = distiller.objectives['it']
        if not method(name).needs_teacher or objective.asks_teacher:
            continue
        ran = _parts_that_run(distiller, batch(family))
        if ran:
            unsaid.append((name, family, ran[:2]))
    assert not unsaid


def _parts_that_run(distiller, data):
    """Modules of the teacher that run while objectives compute, and not the teacher."""
    teacher = distiller.teachers['teacher']
    inputs, samples = data
    ran, inside = [], [False]
    handles = [
        module.register_forward_hook(
            lambda m, i, o, name=name: ran.append(name) if inside[0] else None
        )
        for name, module in teacher.model.named_modules()
    ]
    objective = distiller.objectives['it']
    forward = objective.forward

    def watched(trace):
        inside[0] = True
        try:
            return forward(trace)
        finally:
            inside[0] = False

    objective.forward = watched
    try:
        distiller.loss(inputs, copy.deepcopy(samples))
    finally:
        for handle in handles:
            handle.remove()
    return ran
