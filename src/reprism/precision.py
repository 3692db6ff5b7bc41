"""Devices and number formats by name, and which of the latter a device's hardware multiplies fastest."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Number formats to ask for."""

NumberFormat = Literal["fp32", "bf16", "fp16", "int8"]
"""Number formats that a network computes in. A network is ``int8`` by its file."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types by the names of precisions."""


def usable_device(name: torch.device | str | None = None) -> torch.device:
    """Return a device by its name, such as ``cuda`` or ``cpu``; without one, a GPU where there is one.

    Raises:
        ValueError: There is no such device, or PyTorch cannot use it.
    """
    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch that was built without
        reason = str(error).split(". ")[0].splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here ({reason}): leave it out, or give cpu") from error
    return torch.device(device)


def fastest_precision(device: torch.device | str) -> Literal["fp32", "bf16", "fp16"]:
    """Return the precision that ``auto`` means on a device: bf16 where the hardware has it, else the next best."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if kind == "cpu":
        # Without these instructions bf16 on a CPU is emulated, and several times slower than float32.
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if has_bf16 else "fp32"
    return "fp32"


def autocast(device: torch.device | str, precision: Precision | NumberFormat) -> AbstractContextManager[object]:
    """Mixed precision on ``device`` as named; nothing for ``fp32`` and ``int8``."""
    if precision == "auto":
        precision = fastest_precision(device)
    if precision in ("fp32", "int8"):
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision])
