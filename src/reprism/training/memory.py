"""Memory that one training step gives back and the next one needs."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h; both are for the whole process.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for later tensors of this process, instead of returning it to the system.

    Feature maps larger than 32 MB go back to the system at once otherwise, and so may others, as chance has it; the
    system clears every page anew when the next step asks for it. Up to 2 GB stay with the process when training ends.

    Returns:
        Whether it could be asked for: the C library is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _TRIM_BYTES) and mallopt(_MMAP_THRESHOLD, _MMAP_BYTES))
