"""Depthwise convolutions that train fast on the CPU.

On the CPU, PyTorch hands convolutions to oneDNN. It has fast kernels for every depthwise forward pass, but not
for every gradient: in bfloat16 the two below take 30 to 100 times as long as the forward pass, together three
quarters of a training step of an EfficientNet. Both can be put together from convolutions that are fast:

- *the input's*, for stride s > 1: the input's pixels fall into s² phases (row mod s, column mod s). A phase
  meets every s-th row and column of the kernel only, and its gradient is a plain stride-1 convolution of the
  output's gradient with these, flipped.
- *the weight's*, for kernels wider than three columns: each column of the kernel has its own sum, so the gradient
  of a wide kernel is the gradients of narrow ones side by side, each over a shifted input.

The result is PyTorch's up to rounding; inside these convolutions too, sums are accumulated in float32.
Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
https://arxiv.org/abs/1603.07285, section 4 (the gradient of a convolution as a convolution).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]

# Widest kernel for which oneDNN (3.13) has a fast gradient of a depthwise weight; its height does not matter.
_COLUMNS = 3


def speed_up_depthwise(module: nn.Module) -> nn.Module:
    """Give every depthwise convolution in ``module`` (or ``module`` itself) the fast gradients of this file.

    What the module computes, its parameters and their names stay as they are; so does what it does on other
    devices and where no gradient is asked for. Convolutions that are dilated, padded with anything but a
    given number of zeros, or of a class of their own (timm's weight-standardised ones) are left alone.

    Returns:
        ``module``, changed in place.
    """
    for conv in module.modules():
        fast = _FAST_CLASS.get(type(conv))
        if fast is not None and _is_plain_depthwise(conv):
            # A class, unlike a forward function set on the instance, goes through copy.deepcopy and pickle.
            conv.__class__ = fast
    return module


def _is_plain_depthwise(conv: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and 1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise ``nn.Conv2d`` with fast gradients on the CPU; made by :func:`speed_up_depthwise`."""

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×H'×W'."""
        return depthwise_conv2d(x, self.weight, self.bias, _pair(self.stride), _pair(self.padding))


class DepthwiseConv2dSame(Conv2dSame):
    """timm's ``Conv2dSame`` (TensorFlow's padding, which depends on the input's size), likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W → B×C×⌈H/s⌉×⌈W/s⌉."""
        stride = _pair(self.stride)
        x = pad_same(x, list(self.kernel_size), list(stride))
        return depthwise_conv2d(x, self.weight, self.bias, stride, (0, 0))


_FAST_CLASS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: DepthwiseConv2d,
    Conv2dSame: DepthwiseConv2dSame,
}


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """``F.conv2d(x, weight, bias, stride, padding, groups=C)``, with fast gradients where there are any.

    Args:
        x: B×C×H×W.
        weight: C×1×k×l.
        bias: C, or none.
        stride, padding: For rows and columns.

    Returns:
        B×C×H'×W', in the data type that ``F.conv2d`` would give it, under ``torch.autocast`` too.
    """
    dtype = x.dtype
    if torch.is_autocast_enabled("cpu") and dtype == torch.float32:
        dtype = torch.get_autocast_dtype("cpu")
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not (wanted and x.device.type == "cpu" and x.dim() == 4 and _gains(dtype, weight, stride)):
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    # Autocast knows no custom functions: its casts are made here, where autograd sees them.
    bias = None if bias is None else bias.to(dtype)
    output: Tensor = _DepthwiseConv2d.apply(x.to(dtype), weight.to(dtype), bias, stride, padding)
    return output


def _gains(dtype: torch.dtype, weight: Tensor, stride: Pair) -> bool:
    """Return whether one of the two gradients is faster here than in PyTorch."""
    if dtype not in (torch.bfloat16, torch.float32):
        return False
    return weight.shape[3] > _COLUMNS or _by_phases(dtype, weight, stride)


def _by_phases(dtype: torch.dtype, weight: Tensor, stride: Pair) -> bool:
    # In float32 oneDNN's own strided kernel is faster. A kernel smaller than the stride leaves phases without taps.
    return dtype == torch.bfloat16 and max(stride) > 1 and weight.shape[2] >= stride[0] and weight.shape[3] >= stride[1]


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        # A gradient may come in any layout (a mean's is expanded); the convolutions are fast in the input's.
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        grad = grad.contiguous(memory_format=layout)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            gradient = phased_grad_input if _by_phases(x.dtype, weight, stride) else _native_grad_input
            grad_x = gradient(grad, x, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            grad_weight = columnwise_grad_weight(grad, x, weight, stride, padding)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def phased_grad_input(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Compute the gradient of a depthwise convolution's input, by a stride-1 convolution per phase of the stride.

    Output row o is Σ_i weight[i] · x[o·s + i - p]. So row r of x with r + p = s·q + a, 0 ≤ a < s, meets the
    taps a, a+s, a+2s, …, and has the gradient Σ_t weight[a + s·t] · grad[q - t]: a convolution over q.
    Likewise columns.

    Args:
        grad: Gradient of the output, B×C×H'×W'.
        x: The input, B×C×H×W; only its size, type and layout are looked at.
        weight: C×1×k×l, k and l not smaller than the strides.
        stride, padding: For rows and columns.

    Returns:
        B×C×H×W, laid out in memory as ``x`` is.
    """
    result = torch.empty_like(x)
    (height, width), (down, across) = x.shape[2:], stride
    # A map smaller than the stride lacks some phases.
    for top in range(min(down, height)):
        row_taps, above, below = _window(top, height, grad.shape[2], weight.shape[2], down, padding[0])
        for left in range(min(across, width)):
            column_taps, before, after = _window(left, width, grad.shape[3], weight.shape[3], across, padding[1])
            taps = weight[:, :, row_taps, column_taps].flip(2, 3)
            # Negative widths cut off what of grad this phase never meets.
            met = F.pad(grad, (before, after, above, below))
            result[:, :, top::down, left::across] = F.conv2d(met, taps, groups=len(weight))
    return result


def _window(first: int, size: int, grad_size: int, kernel: int, stride: int, padding: int) -> tuple[slice, int, int]:
    """Find what pixels ``first``, ``first + stride``, … of an axis meet.

    Returns:
        The kernel's taps, and how many zeros to put before and after grad.
    """
    start, phase = divmod(first + padding, stride)
    taps = len(range(phase, kernel, stride))
    count = len(range(first, size, stride))
    return slice(phase, None, stride), taps - 1 - start, start + count - grad_size


def columnwise_grad_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Compute the gradient of a depthwise convolution's weight, at most three columns of the kernel at a time.

    Column j of the kernel has the gradient Σ grad[o] · x[o·s + j - p], summed over output columns o. So
    columns j to j+n-1 are a kernel of their own, unpadded, over columns j - p to (W'-1)·s + j+n-1 - p of x.

    Args:
        grad: Gradient of the output, B×C×H'×W'.
        x: The input, B×C×H×W.
        weight: C×1×k×l; only its size and type are looked at.
        stride, padding: For rows and columns.

    Returns:
        C×1×k×l.
    """
    width, reach = weight.shape[3], (grad.shape[3] - 1) * stride[1]
    if width <= _COLUMNS:
        return _native_grad_weight(grad, x, weight, stride, padding)
    pieces = []
    for first in range(0, width, _COLUMNS):
        columns = weight[..., first : first + _COLUMNS]
        left = first - padding[1]
        right = left + reach + columns.shape[3]
        if left >= x.shape[3] or right <= 0:  # on a map narrower than the kernel: they see nothing but padding
            pieces.append(torch.zeros_like(columns))
            continue
        seen = F.pad(x, (-left, right - x.shape[3]))
        pieces.append(_native_grad_weight(grad, seen, columns, stride, (padding[0], 0)))
    return torch.cat(pieces, dim=3)


def _native_grad_input(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    gradient: Tensor = _native_backward(grad, x, weight, stride, padding, [True, False, False])[0]
    return gradient


def _native_grad_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    gradient: Tensor = _native_backward(grad, x, weight, stride, padding, [False, True, False])[1]
    return gradient


def _native_backward(grad: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, wanted: list[bool]) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )


def _pair(numbers: Any) -> Pair:
    rows, columns = numbers
    return int(rows), int(columns)
