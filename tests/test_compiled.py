"""A compiled teacher shows what it shows uncompiled, for as many shapes as allowed, or says why not."""

import copy

import pytest
import torch
from distiller_toys import Square, batch, toy
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_ranks import of_two_ranks

from mmkd import compiled
from mmkd.compiled import Compiled, NotCompiled, check_compiler, reason, shadow
from mmkd.engine.module_state import get_module_state, set_module_state
from mmkd.methods.cwd import CWD
from mmkd.plan import Plan
from mmkd.tap import parse_taps
from mmkd.teacher import Teacher
from mmkd.testing import (
    ToyNet,
    detection_batch,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Everything but the generation of machine code."""
    monkeypatch.setattr(compiled, 'BACKEND', 'aot_eager')


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(
        compiled, 'print_log', lambda text, _, level=0: texts.append(text) if level else None
    )
    return texts


@pytest.fixture
def compilations(monkeypatch):
    """Counts the programs that reach the backend, recompilations of dynamo included."""
    count = []

    def backend(graph, inputs):
        count.append(tuple(inputs[0].shape))
        return graph

    monkeypatch.setattr(compiled, 'BACKEND', backend)
    return count


def ready(model, taps, **options):
    teacher = Teacher(model, checkpoint='random', compile=True, **options)
    teacher.set_taps(parse_taps(taps))
    return teacher


def show(teacher, data=None):
    return teacher(*(data or detection_batch()), teacher.pixels)


def of(shape, n=2):
    torch.manual_seed(sum(shape))
    return torch.randn(n, 3, *shape), [BaseDataElement() for _ in range(n)]


def same(found, wanted):
    """Whether two sides recorded the same, call by call."""
    assert found.calls.keys() == wanted.calls.keys()
    for key, calls in wanted.calls.items():
        torch.testing.assert_close(found.calls[key], calls, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------ what it shows


@pytest.mark.parametrize(
    ('config', 'taps'),
    [
        (tiny_retinanet, ['backbone.conv1', 'neck', 'neck[0]', 'bbox_head.forward()']),
        (tiny_pspnet, ['decode_head.conv_seg', 'decode_head.conv_seg@in[0]']),
    ],
)
def test_the_taps_show_the_same(config, taps):
    teacher = ready(config(4), taps)
    sides = [show(teacher) for _ in range(3)]
    assert len(teacher.compiled.programs) == 1 and teacher.compiled.whole
    teacher.compiled = None
    for side in sides:
        same(side, show(teacher))
        assert side.model is teacher.model


def test_what_is_overwritten_behind_the_tap_is_kept():
    teacher = ready(ToyNet(inplace=True), ['neck.conv', 'head.shared', 'neck'])
    for data in (of((32, 32)), of((32, 32)), of((48, 32))):
        side = show(teacher, data)
        wanted = teacher.model.neck.conv(teacher.model.backbone(data[0]))
        torch.testing.assert_close(side['neck.conv'][0], wanted)
        assert (side['neck.conv'][0] < 0).any(), 'nothing to overwrite'
        assert len(side.raw('head.shared')) == 2


class Reading(ToyNet):
    """Its head depends on a number of a data sample, and on numbers of the features."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        feats = self.extract_feat(inputs)
        factor = data_samples[0].get('factor')
        if feats[0].mean() > 1e6:
            factor = 0
        return self.head([level * factor for level in feats])


def test_numbers_of_the_data_are_not_compiled_in():
    teacher = ready(Reading(), ['head', 'neck'])
    inputs, _ = of((32, 32))
    heads = [
        show(teacher, (inputs, [BaseDataElement(metainfo=dict(factor=f))] * 2)) for f in (1, 1, 5)
    ]
    assert not teacher.compiled.whole and len(teacher.compiled.programs) == 1
    assert not torch.equal(heads[1]['head'][0], heads[2]['head'][0])
    assert torch.equal(heads[1]['neck'][0], heads[2]['neck'][0])


class Keeping(ToyNet):
    """Keeps a tensor for the next step, as positional encodings of one size."""

    kept = None

    def extract_feat(self, inputs):
        if self.kept is None or self.kept.shape[-1] != inputs.shape[-1]:
            self.kept = torch.arange(inputs.shape[-1]) / inputs.shape[-1]
        return super().extract_feat(inputs + self.kept)


def test_nothing_without_values_stays_on_the_model():
    teacher = ready(Keeping(), 'neck')
    data = of((32, 32)), of((32, 48))
    found = [show(teacher, one) for one in data * 2]
    model = copy.deepcopy(teacher.model)
    assert type(teacher.model.kept) is torch.Tensor
    for side, (inputs, _) in zip(found, data * 2, strict=True):
        torch.testing.assert_close(side['neck'], list(model.extract_feat(inputs)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.model.modules())


def test_weights_that_change_in_place_and_precisions_that_come_back_are_seen():
    teacher = ready(ToyNet(norm='BN'), 'neck')
    data = of((32, 32))
    show(teacher, data)
    with torch.no_grad():
        teacher.model.neck.conv.weight.mul_(3)
    teacher.model.double().float()  # as a validation in full precision does
    side = show(teacher, data)
    torch.testing.assert_close(side['neck'], list(teacher.model.extract_feat(data[0])))
    assert len(teacher.compiled.programs) == 1


def test_a_copy_that_shares_its_tensors():
    model = ToyNet(norm='BN')
    other = shadow(model)
    assert other.neck is not model.neck
    for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True):
        assert a.data_ptr() == b.data_ptr()


# ----------------------------------------------------------------------------------- how often


def test_one_program_for_each_shape_up_to_the_limit(compilations, said):
    teacher = ready(ToyNet(), 'neck', compile_shapes=2)
    shapes = (32, 32), (32, 48), (32, 32), (48, 48), (32, 48), (64, 32), (32, 32)
    for shape in shapes:
        data = of(shape)
        same(show(teacher, data), teacher.compiled._eager(data[0], *data))
    assert len(compilations) == 2, compilations
    assert (
        len(said) == 1 and 'a batch of 2 x 3 x 48 x 48 is one more than compile_shapes=2' in said[0]
    )


def test_the_last_batch_of_an_epoch_is_a_shape_of_its_own(compilations):
    teacher = ready(ToyNet(), 'neck')
    assert [show(teacher, of((32, 32), n))['neck'][0].shape[0] for n in (2, 1, 2)] == [2, 1, 2]
    assert len(compilations) == 2


def test_no_option_of_the_compiler_is_changed(compilations):
    import torch._dynamo.config as config

    before = config.get_config_copy()
    distiller = toy(teacher=Teacher(ToyNet(6), checkpoint='random', compile=True))
    with torch.autocast('cpu', torch.bfloat16):  # the student's, which shall not reach the teacher
        for n in (1, 2, 3, 2, 1):
            distiller.loss(*batch(n))
    assert config.get_config_copy() == before
    assert len(compilations) == 4, 'one for the trial, three batch sizes'


def test_another_memory_layout_is_a_program_of_its_own(compilations):
    teacher = ready(ToyNet(), 'neck')
    inputs, samples = of((32, 48))
    for seen in (inputs, inputs.to(memory_format=torch.channels_last), inputs):
        side = show(teacher, (seen, samples))
        torch.testing.assert_close(side['neck'], list(teacher.model.extract_feat(inputs)))
    assert len(compilations) == 2


# ------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize('kind', ['raises', 'lies'])
def test_a_compiler_that_fails_leaves_the_teacher_uncompiled(monkeypatch, said, kind):
    tried = []

    def backend(graph, inputs):
        tried.append(1)
        if kind == 'raises':
            raise RuntimeError('no room\nfor registers')
        return lambda *args: [t + 1 for t in graph(*args)]

    teacher = ready(ToyNet(), 'neck')
    monkeypatch.setattr(compiled, 'BACKEND', backend)
    for shape in ((32, 32), (32, 32), (48, 48)):
        data = of(shape)
        same(show(teacher, data), teacher.compiled._eager(data[0], *data))
    assert len(tried) == 1 and len(said) == 1
    assert ('no room' if kind == 'raises' else 'it changes the taps by') in said[0]
    assert teacher.compiled.programs == {}


def test_a_later_failure_leaves_what_is_compiled(monkeypatch, compilations, said):
    teacher = ready(ToyNet(), 'neck')
    show(teacher, of((32, 32)))
    monkeypatch.setattr(compiled, 'BACKEND', 'no such backend')
    show(teacher, of((48, 48)))
    show(teacher, of((32, 32)))
    assert len(teacher.compiled.forms) == 1 == len(said)


class Choosing(ToyNet):
    """Selects by value what it returns."""

    def extract_feat(self, inputs):
        found = super().extract_feat(inputs)
        return found if inputs.mean() > 1e6 else found[::-1]


def planned(model, tap='neck', **options):
    """The plan of a student that imitates a teacher."""
    teacher = Teacher(copy.deepcopy(model), checkpoint='random', compile=True, **options)
    return Plan(copy.deepcopy(model), dict(t=teacher), dict(cwd=CWD(student=tap))).prepare()


def test_the_plan_says_how_far_it_is_compiled():
    text = str(planned(ToyNet()))
    assert '  compile: the whole route, for 8 shapes of a batch; changes the taps by' in text


def test_a_second_stage_is_left_as_it_is():
    """What it selects depends on numbers; the taps in front of it and behind show the same."""
    teacher = ready(
        tiny_faster_rcnn(4), ['neck', 'roi_head.bbox_head', 'roi_head.bbox_roi_extractor@in[1]']
    )
    note = teacher.compiled.rehearse(*detection_batch())
    assert note.startswith('extract_feat, without the heads, for 8 shapes of a batch')
    sides = [show(teacher) for _ in range(2)]
    assert len(teacher.compiled.programs) == 1
    teacher.compiled = None
    for side in sides:
        same(side, show(teacher))


def test_a_network_that_cannot_be_captured_runs_as_it_is():
    plan = planned(Choosing())
    assert plan.teachers['t'].compiled is None
    assert '  compile: left out: ' in str(plan)
    same(show(plan.teachers['t'], of((32, 32))), show(plan.teachers['t'], of((32, 32))))


@pytest.mark.parametrize(
    'message', ['No working C++ compiler found in torch._inductor.config.cpp.cxx', 'no triton']
)
def test_without_a_compiler_the_plan_says_so(monkeypatch, message):
    def backend(graph, inputs):
        raise RuntimeError(message)

    monkeypatch.setattr(compiled, 'BACKEND', backend)
    with pytest.raises(NotCompiled, match='torch.compile does not work here: ' + message[:9]):
        check_compiler('cpu')
    plan = planned(ToyNet())
    assert f'  compile: left out: torch.compile does not work here: {message[:9]}' in str(plan)
    assert plan.teachers['t'].compiled is None


def test_a_tap_on_what_is_no_tensor():
    class Odd(ToyNet):
        def extract_feat(self, inputs):
            return self.neck(self.backbone(inputs)), BaseDataElement()

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return self.head(self.extract_feat(inputs)[0])

    teacher = ready(Odd(), 'extract_feat()')
    with pytest.raises(NotCompiled, match='a tap shows a BaseDataElement'):
        teacher.compiled.capture(of((32, 32))[0])


def test_a_route_without_extract_feat_has_no_second_way():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1)

        def forward(self, inputs, data_samples, mode):
            return self.body(inputs * len(data_samples))

    teacher = ready(Bare(), 'body')
    with pytest.raises(NotCompiled, match='reads data samples'):
        teacher.compiled.rehearse(*of((32, 32)))


@pytest.mark.parametrize('number', [0, 2.5, True, 'all'])
def test_the_number_of_shapes_is_checked(number):
    with pytest.raises(
        ValueError, match='teacher: compile_shapes must be a whole number of at lea'
    ):
        Teacher(ToyNet(), 'random', compile=True, compile_shapes=number)


def test_the_reason_is_one_line_of_the_innermost_error():
    error = RuntimeError('outside')
    error.__cause__ = RuntimeError('\n\nInvalidCxxCompiler: none.\nSet TORCHDYNAMO_VERBOSE=1')
    assert reason(error) == 'InvalidCxxCompiler: none'
    assert reason(RuntimeError()) == 'RuntimeError'


# ----------------------------------------------------------------------- in a Distiller, and resumed


def losses_of(compile, objectives=2, dtype=None, amp=False):
    own = {f'o{i}': Square(student=tap) for i, tap in enumerate(['neck', 'neck.conv'][:objectives])}
    teacher = Teacher(seeded(), 'random', compile=compile, dtype=dtype)
    distiller = toy(own, teacher)
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        found = [distiller.loss(*batch(n)) for n in (2, 2, 3)]
    assert (teacher.compiled is not None) == compile
    return [{k: float(v.detach()) for k, v in losses.items()} for losses in found]


def seeded():
    torch.manual_seed(1)
    return ToyNet(6, inplace=True, norm='GN')


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize(('dtype', 'share'), [(None, 1e-5), ('bf16', 2e-2)])
def test_two_objectives_of_one_teacher_lose_the_same(amp, dtype, share):
    found, wanted = (losses_of(compile, dtype=dtype, amp=amp) for compile in (True, False))
    for a, b in zip(found, wanted, strict=True):
        assert a == pytest.approx(b, rel=share)


def test_a_weight_of_zero_compiles_nothing_in_training(compilations):
    distiller = toy(dict(s=Square(weight=0)), Teacher(ToyNet(6), checkpoint='random', compile=True))
    count = len(compilations)
    distiller.loss(*batch())
    assert len(compilations) == count


def test_the_random_stream_is_left_alone():
    torch.manual_seed(0)
    student = ToyNet()
    state = torch.get_rng_state()
    for compile in (False, True):
        torch.set_rng_state(state)
        distiller = Teacher(ToyNet(6), checkpoint='random', compile=compile)
        torch.set_rng_state(state)
        plan = Plan(student, dict(t=distiller), dict(s=Square())).prepare()
        show(plan.teachers['t'], of((32, 32)))
        torch.set_rng_state(state)
        before = torch.get_rng_state()
        show(plan.teachers['t'], (torch.zeros(1, 3, 40, 40), []))
        assert torch.equal(before, torch.get_rng_state())


def test_a_resumed_run_makes_the_same_choices(compilations, said):
    """The third shape was one too many, and is, whichever comes first after resuming."""

    def build():
        return toy(teacher=Teacher(ToyNet(6), checkpoint='random', compile=True, compile_shapes=2))

    first = build()
    for n in (1, 2, 3):
        first.loss(*batch(n))
    state = get_module_state(first)
    assert [*state] == ['teachers.teacher.compiled']
    again, fresh = build(), build()
    set_module_state(again, state)
    for distiller in (again, fresh):
        count = len(compilations)
        for n in (3, 2, 1, 3):
            distiller.loss(*batch(n))
        assert len(compilations) == count + 2
    chosen = [{form[0][0] for form in d.teachers['teacher'].compiled.forms} for d in (again, fresh)]
    assert chosen == [{1, 2}, {3, 2}]


@pytest.mark.parametrize('state', [None, 3, {}, dict(forms=3, stopped=''), dict(forms=[1])])
def test_a_state_that_no_run_wrote_is_left_alone(state):
    one = ready(ToyNet(), 'neck').compiled
    one.state = state
    assert one.forms == [] and not one.stopped


def two_teachers(rank):
    """Two steps of DDP with unequal batches; gradients with and without a compiled teacher."""
    compiled.BACKEND = 'aot_eager'
    found = []
    for compile in (True, False):
        distiller = toy(teacher=Teacher(seeded(), checkpoint='random', compile=compile))
        model = DistributedDataParallel(distiller)
        for n in (2, 2 + rank):
            losses = model(*batch(n), mode='loss')
            model.zero_grad()
            distiller.parse_losses(losses)[0].backward()
        programs = distiller.teachers['teacher'].compiled
        count = len(programs.programs) if compile else None
        found.append(({k: p.grad for k, p in distiller.named_parameters()}, count))
    return found


def test_two_ranks_compile_each_their_own_shapes(tmp_path):
    ranks = of_two_ranks(two_teachers, tmp_path)
    for rank, ((found, count), (wanted, _)) in enumerate(ranks):
        assert count == 1 + rank
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ranks[0][0][0], ranks[1][0][0])


# ---------------------------------------------------------------------------------- the compiler


def test_the_compiler_itself(monkeypatch, said):
    """inductor generates C++; where there is no compiler for it, the plan has to say so."""
    monkeypatch.setattr(compiled, 'BACKEND', 'inductor')
    try:
        check_compiler('cpu')
    except NotCompiled as refusal:
        assert 'ompiler' in str(refusal)
        assert planned(ToyNet()).teachers['t'].compiled is None
        return
    teacher = ready(ToyNet(inplace=True), ['neck.conv', 'neck'])
    data = of((32, 32))
    sides = [show(teacher, data) for _ in range(2)]
    assert not said and isinstance(teacher.compiled, Compiled)
    teacher.compiled = None
    for side in sides:
        same(side, show(teacher, data))


def test_the_option_is_off_by_default():
    teacher = Teacher(ToyNet(), checkpoint='random')
    teacher.set_taps(parse_taps('neck'))
    assert teacher.compiled is None
