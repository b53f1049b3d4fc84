"""Deformable convolutions against a loop, compiled operators and finite differences."""

import mmcv.ops
import pytest
import torch
from operator_loops import deform_conv

GEOMETRIES = {
    'plain': ({}, 1, 1),
    'strided': ({'stride': 2, 'padding': 1}, 1, 1),
    'uneven': ({'stride': (1, 2), 'padding': (2, 1), 'dilation': (2, 1)}, 1, 1),
    'groups': ({'padding': 1}, 2, 1),
    'offset_groups': ({'padding': 1}, 1, 2),
    'both_groups': ({'padding': 1, 'stride': 2}, 2, 2),
}


def layer_and_inputs(modulated, name, dtype):
    options, groups, offset_groups = GEOMETRIES[name]
    kind = mmcv.ops.ModulatedDeformConv2d if modulated else mmcv.ops.DeformConv2d
    layer = kind(
        4, 4, (3, 2), groups=groups, deform_groups=offset_groups, bias=modulated, **options
    ).to(dtype)
    x = torch.randn(2, 4, 6, 5, dtype=dtype)
    size = torch.nn.Conv2d(4, 1, (3, 2), **options)(x.float()).shape[2:]
    offset = torch.randn(2, offset_groups * 12, *size, dtype=dtype) * 2
    offset[1, :, 1:] = offset[1, :, 1:].round()  # as at the start, when offsets are 0
    mask = torch.rand(2, offset_groups * 6, *size, dtype=dtype)
    return layer, [x, offset, mask][: 3 if modulated else 2]


def numbers(layer):
    return (layer.stride, layer.padding, layer.dilation, layer.groups, layer.deform_groups)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', GEOMETRIES)
@pytest.mark.parametrize('modulated', [False, True])
def test_values_and_gradients(both, modulated, name, dtype):
    layer, inputs = layer_and_inputs(modulated, name, dtype)
    leaves = [x.requires_grad_() for x in inputs]

    def results():
        out = layer(*leaves)
        seed = torch.linspace(-1, 1, out.numel(), dtype=dtype).view(out.shape)
        return out, *torch.autograd.grad(out, [*leaves, *layer.parameters()], seed)

    found, others = both(results)
    for wanted in others:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    x, offset, *mask = (leaf.detach() for leaf in leaves)
    if dtype == torch.float32:
        wanted = deform_conv(x, offset, mask[0] if mask else None, layer.weight, *numbers(layer))
        wanted = wanted + layer.bias[:, None, None] if modulated else wanted
        torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-5)


def test_two_threads_add_up_in_the_same_order_every_time(own):
    layer, inputs = layer_and_inputs(True, 'both_groups', torch.float32)
    leaves = [*(x.requires_grad_() for x in inputs), *layer.parameters()]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = (
            torch.autograd.grad(layer(*inputs).square().sum(), leaves) for _ in range(2)
        )
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize('modulated', [False, True])
def test_gradients_by_finite_differences(own, modulated):
    layer, inputs = layer_and_inputs(modulated, 'both_groups', torch.float64)
    inputs[1] = inputs[1].floor() + 0.2 + torch.rand_like(inputs[1]) * 0.6  # not at a kink
    parameters = dict(layer.named_parameters())

    def call(*values):
        named = dict(zip(parameters, values[len(inputs) :], strict=True))
        return torch.func.functional_call(layer, named, values[: len(inputs)])

    leaves = [x.detach().requires_grad_() for x in (*inputs, *parameters.values())]
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


def test_an_image_smaller_than_the_kernel(both):
    layer, (x, offset) = layer_and_inputs(False, 'groups', torch.float32)
    x, offset = x[:, :, :1, :1], offset[:, :, :1, :2]
    found, others = both(lambda: layer(x, offset))
    for wanted in (deform_conv(x, offset, None, layer.weight, *numbers(layer)), *others):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_rounded_once(own, dtype):
    layer, inputs = layer_and_inputs(True, 'groups', dtype)
    found = layer(*inputs)
    wanted = layer.float()(*(x.float() for x in inputs))
    assert found.dtype == dtype and torch.equal(found, wanted.to(dtype))


def test_amp_does_not_change_the_precision(own):
    layer, inputs = layer_and_inputs(True, 'plain', torch.float32)
    wanted = layer(*inputs)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(layer(*inputs), wanted)
