"""Operators that read memory without looking at strides get tensors in which that is right."""

import copy

import mmcv.ops
import pytest
import torch

from mmkd.operators import OperatorMissing, contiguous
from mmkd.operators.extension import compiled_operators, using

COMPILED = {name: contiguous(operator) for name, operator in compiled_operators().items()}

ROIS = torch.tensor([[0, 1.0, 2, 9, 8], [1, 3, 1, 14, 11]])
MAP, OFFSET, MASK = torch.randn(2, 8, 12, 16), torch.randn(2, 18, 12, 16), torch.rand(2, 9, 12, 16)


def align(mode):
    return lambda x: mmcv.ops.roi_align(x, ROIS, (3, 5), 1.0, 2, mode, True)


OPERATORS = {
    'roi_align': (align('avg'), MAP),
    'roi_align_max': (align('max'), MAP),
    'roi_align_rotated': (
        lambda x: mmcv.ops.roi_align_rotated(
            x, torch.tensor([[0, 5.0, 5, 6, 4, 0.3]]), (3, 5), 1.0, 2, True
        ),
        MAP,
    ),
    'deform_conv': (mmcv.ops.DeformConv2d(8, 4, 3, padding=1), MAP, OFFSET),
    'modulated_deform_conv': (
        mmcv.ops.ModulatedDeformConv2d(8, 4, 3, padding=1),
        MAP,
        OFFSET,
        MASK,
    ),
    'psamask': (mmcv.ops.PSAMask('collect', (7, 7)), torch.randn(2, 49, 12, 16)),
}
ONLY_COMPILED = ('roi_align_rotated', 'psamask')
LAYOUTS = {
    'channels_last': lambda x: x.to(memory_format=torch.channels_last),
    'transposed': lambda x: x.mT.contiguous().mT,
}


@pytest.mark.parametrize('operators', [{}, COMPILED], ids=['in_use', 'compiled'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', OPERATORS)
def test_values_and_gradients_do_not_depend_on_the_layout(name, layout, operators):
    operator, *inputs = OPERATORS[name]
    if name in ONLY_COMPILED and not COMPILED:
        with pytest.raises(OperatorMissing):
            operator(*inputs)
        return

    def results(change):
        leaves = [change(x.clone()).requires_grad_() for x in inputs]
        out = operator(*leaves)
        seed = change(torch.linspace(-1, 1, out.numel()).view(out.shape))
        return [out, *torch.autograd.grad(out, leaves, seed)]

    with using(operators):
        for found, wanted in zip(results(LAYOUTS[layout]), results(lambda x: x), strict=True):
            assert torch.equal(found, wanted)


def test_contiguous_tensors_are_handed_on_untouched():
    seen = []
    x = torch.ones(2, 3)
    contiguous(lambda *args, **kwargs: seen.extend((*args, *kwargs.values())))(x, 5, other=x)
    assert seen[0] is x and seen[1] == 5 and seen[2] is x


def test_what_is_written_into_arguments_arrives():
    def fill(source, target):
        assert source.is_contiguous() and target.is_contiguous()
        target.copy_(source + 1)

    source, target = torch.rand(3, 2).t(), torch.zeros(3, 2).t()
    version = source._version
    contiguous(fill)(source.expand(2, 3), target)
    assert torch.equal(target, source + 1) and source._version == version
    column = torch.rand(2, 1)
    contiguous(fill)(column.expand(2, 3), target)  # not written back: it is one column
    assert torch.equal(target, column.expand(2, 3) + 1)


@pytest.mark.parametrize('operators', [{}, COMPILED], ids=['in_use', 'compiled'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['roi_align', 'modulated_deform_conv'])
def test_operators_without_a_kernel_for_a_precision_run_in_float32(name, dtype, operators):
    operator, *inputs = OPERATORS[name]
    wanted = operator(*(x.to(dtype).float() for x in inputs))
    with using(operators):
        found = low_precision(operator, inputs, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2)


def low_precision(operator, inputs, dtype):
    low = copy.deepcopy(operator)
    if isinstance(low, torch.nn.Module):
        low.to(dtype)
    return low(*(x.to(dtype) for x in inputs))


def test_other_errors_of_an_operator_are_its_own():
    def fail(x):
        raise RuntimeError('boxes must be rows')

    with pytest.raises(RuntimeError, match='boxes must be rows'):
        contiguous(fail)(MAP.bfloat16())
