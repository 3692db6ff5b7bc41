"""Fast depthwise gradients, against autograd's own in float64."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from reprism.models import depthwise
from reprism.models.depthwise import (
    columnwise_grad_weight,
    depthwise_conv2d,
    phased_grad_input,
    speed_up_depthwise,
)
from reprism.precision import fastest_precision

CHANNELS = 6


def tensors(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """In float64: input, weight, gradient of the output, and the gradients of the former two by autograd."""
    torch.manual_seed(0)
    x = torch.randn(2, CHANNELS, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(CHANNELS, 1, *kernel, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(x, weight, None, stride, padding, groups=CHANNELS)
    grad = torch.randn_like(output)
    grad_x, grad_weight = torch.autograd.grad(output, (x, weight), grad)
    return x.detach(), weight.detach(), grad, grad_x, grad_weight


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 3), (2, 1), (1, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 4), (5, 5), (7, 7), (3, 7), (5, 3)])
def test_gradients_are_autograds(kernel: tuple[int, int], stride: tuple[int, int], layout: torch.memory_format) -> None:
    for padding in ((0, 0), (kernel[0] // 2, kernel[1] // 2), (1, 2), kernel):
        for size in ((8, 8), (9, 7), (7, 12)):
            x, weight, grad, grad_x, grad_weight = tensors(size, kernel, stride, padding)
            x = x.contiguous(memory_format=layout)
            ours = phased_grad_input(grad, x, weight, stride, padding)
            torch.testing.assert_close(ours, grad_x)
            assert ours.stride() == x.stride()
            torch.testing.assert_close(columnwise_grad_weight(grad, x, weight, stride, padding), grad_weight)


def test_maps_smaller_than_the_stride() -> None:
    x, weight, grad, grad_x, grad_weight = tensors((1, 2), (5, 5), (3, 3), (2, 2))
    torch.testing.assert_close(phased_grad_input(grad, x, weight, (3, 3), (2, 2)), grad_x)
    torch.testing.assert_close(columnwise_grad_weight(grad, x, weight, (3, 3), (2, 2)), grad_weight)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("kernel", [(5, 5), (7, 7), (3, 11)])
def test_maps_smaller_than_the_kernel(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """Where some of the kernel's columns see nothing but padding."""
    for padding in ((kernel[0] // 2, kernel[1] // 2), kernel):
        for height in (1, 2, 4):
            for width in range(1, kernel[1]):
                x, weight, grad, grad_x, grad_weight = tensors((height, width), kernel, stride, padding)
                torch.testing.assert_close(phased_grad_input(grad, x, weight, stride, padding), grad_x)
                torch.testing.assert_close(columnwise_grad_weight(grad, x, weight, stride, padding), grad_weight)


def gradients(conv: nn.Module, x: Tensor, autocast: bool = False) -> dict[str, Tensor]:
    """Of a fixed function of the module's output: by parameter name, and ``x``; with the output itself."""
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = conv(x)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, dtype=torch.float64, generator=generator).to(output.dtype)
    names, parameters = zip(*conv.named_parameters(), strict=True)
    found = torch.autograd.grad(output, (*parameters, x), grad)
    return dict(zip((*names, "x"), found, strict=True)) | {"output": output.detach()}


def convolutions() -> dict[str, nn.Conv2d]:
    # Eight or more channels and a few images: enough for oneDNN to choose the kernels that it does in training.
    torch.manual_seed(0)
    return {
        "3, stride 2": nn.Conv2d(32, 32, 3, 2, 1, groups=32, bias=False),
        "5": nn.Conv2d(32, 32, 5, 1, 2, groups=32, bias=False),
        "5, stride 2, bias": nn.Conv2d(32, 32, 5, 2, 2, groups=32),
        "1×5, stride 2": nn.Conv2d(32, 32, (1, 5), 2, (0, 2), groups=32, bias=False),
        "7, bias": nn.Conv2d(32, 32, 7, 1, 3, groups=32),
        "3, stride 2, same": Conv2dSame(32, 32, 3, 2, groups=32, bias=False),
        "5, stride 2, same": Conv2dSame(32, 32, 5, 2, groups=32, bias=False),
        "5, same": Conv2dSame(32, 32, 5, 1, groups=32, bias=False),
    }


@pytest.mark.parametrize("size", [(12, 6), (15, 9)])
@pytest.mark.parametrize("name", convolutions())
@pytest.mark.parametrize("dtype", ["autocast", torch.bfloat16, torch.float32])
def test_as_near_to_the_truth_as_torch(
    name: str, size: tuple[int, int], dtype: torch.dtype | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One bfloat16 rounding of every operand is common to all three.
    conv = convolutions()[name].to(torch.bfloat16).to(torch.float32)
    x = torch.randn(8, 32, *size).to(torch.bfloat16).to(torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    autocast = dtype == "autocast"
    if isinstance(dtype, torch.dtype):
        conv, x = conv.to(dtype), x.to(dtype)
    own = gradients(conv, x, autocast)
    # The output's gradient is rounded to the output's type: the truth starts from the same.
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(own["output"].shape, dtype=torch.float64, generator=generator)
    grad = grad.to(own["output"].dtype).to(torch.float64)
    exact = copy.deepcopy(conv).to(torch.float64)
    wide = x.to(torch.float64).requires_grad_()
    names, parameters = zip(*exact.named_parameters(), strict=True)
    truth = dict(zip((*names, "x"), torch.autograd.grad(exact(wide), (*parameters, wide), grad), strict=True))

    used = []
    function = depthwise._DepthwiseConv2d.apply
    monkeypatch.setattr(
        depthwise._DepthwiseConv2d, "apply", lambda *arguments: (used.append(1), function(*arguments))[1]
    )
    ours = gradients(speed_up_depthwise(conv), x, autocast)

    assert bool(used) == (dtype != torch.float32 or not name.startswith("3"))
    assert torch.equal(ours["output"], own["output"])
    assert ours["output"].dtype == own["output"].dtype
    for key, expected in truth.items():
        assert ours[key].dtype == own[key].dtype
        error = (ours[key].double() - expected).norm() / expected.norm()
        torchs = (own[key].double() - expected).norm() / expected.norm()
        # Rounding the result once costs 2⁻⁹ at most (float32: sums in another order, a few 10⁻⁷).
        assert error <= 1.05 * torchs + 1e-6, f"{key}: {error:.2e}, torch {torchs:.2e}"
        # Where bfloat16 is emulated, torch rounds sums on the way too.
        half = 2**-8 if fastest_precision("cpu") == "bf16" else 2**-7
        assert error < (1e-6 if dtype == torch.float32 else half)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.Conv2d(16, 16, 5, 2, 2, groups=16),
        nn.Sequential(nn.BatchNorm2d(16), Conv2dSame(16, 16, 3, 2, groups=16)),
    )


def test_a_network_keeps_names_values_and_copies() -> None:
    plain = network()
    fast = speed_up_depthwise(network())
    assert [type(m).__name__ for m in fast.modules() if isinstance(m, nn.Conv2d)] == [
        "Conv2d",
        "DepthwiseConv2d",
        "DepthwiseConv2dSame",
    ]
    assert list(fast.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    unpickled = pickle.loads(pickle.dumps(copied))
    x = torch.randn(4, 3, 32, 16)
    expected = gradients(plain, x, autocast=True)
    for other in (copied, unpickled):
        found = gradients(other, x, autocast=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key == "1.bias":
                continue  # batch normalisation takes it away again: its gradient is rounding and nothing else
            # The norm, not element by element: gradients passed on in bfloat16 are rounded at every layer.
            assert (found[key] - value).norm() <= 2**-6 * value.norm() + 1e-4, key
    assert speed_up_depthwise(fast) is fast


def test_without_gradients_it_is_the_standard_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the custom function was called")

    plain, fast = network().eval(), speed_up_depthwise(network()).eval()
    monkeypatch.setattr(depthwise._DepthwiseConv2d, "apply", refuse)
    x = torch.randn(2, 3, 32, 16)
    with torch.no_grad():
        assert torch.equal(fast(x), plain(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(fast(x), plain(x))
    frozen = fast.requires_grad_(False)
    assert torch.equal(frozen(x), plain(x))
    weight = torch.randn(4, 1, 5, 5, device="meta", requires_grad=True)
    other_device = depthwise_conv2d(torch.randn(2, 4, 8, 8, device="meta"), weight, None, (2, 2), (2, 2))
    assert other_device.shape == (2, 4, 4, 4)
    double = fast[1].double().requires_grad_()
    assert double(torch.randn(2, 16, 8, 8, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(AssertionError, match="custom function"):
        fast[1].float()(torch.randn(2, 16, 8, 8))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 5, groups=4),
        nn.Conv2d(8, 16, 5, groups=8),
        nn.Conv2d(1, 1, 5),
        nn.Conv2d(8, 8, 5, dilation=2, groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect", groups=8),
        nn.Conv1d(8, 8, 5, groups=8),
    ],
)
def test_other_convolutions_are_left_alone(conv: nn.Module) -> None:
    assert type(speed_up_depthwise(conv)) in (nn.Conv1d, nn.Conv2d)
