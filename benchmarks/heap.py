"""The C library's heap while memory is measured: what was freed goes back to the system, and no hole is filled again.

glibc gives a block of 64 KiB or more a mapping of its own, when told to, only where no hole of its heap fits: what
timings left behind would be filled, and stay resident after it is freed. On VGG-16 that made 1.1 look like 1.4. So the
holes are taken first; nobody writes into them, so they take no memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt
_OWN_MAPPING, _USUAL_MAPPING, _USUAL_TRIM = 2**16, 2**25, 2**26  # the usual: what glibc arrives at by itself
_HOLES = tuple(2**exponent for exponent in range(30, 15, -1))


class _Counts(ctypes.Structure):
    """glibc's mallinfo2, in bytes unless it says blocks."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "free_blocks", "fast_blocks", "mapped_blocks", "mapped", "most_used", "fast", "used", "free", "top"
        )
    ]  # fmt: skip


@contextmanager
def freed_at_once() -> Iterator[None]:
    """While this lasts, memory that is freed is the system's again, where the C library can (glibc)."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _USUAL_MAPPING)
    library.malloc_trim(0)
    taken = _holes_taken(library) if hasattr(library, "mallinfo2") else []
    library.mallopt(_MMAP_THRESHOLD, _OWN_MAPPING)
    try:
        yield
    finally:
        for block in taken:
            library.free(block)
        library.mallopt(_MMAP_THRESHOLD, _USUAL_MAPPING)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)


def _holes_taken(library: Any) -> list[ctypes.c_void_p]:
    """Blocks that fill every hole of 64 KiB or more, the largest first, without the heap growing."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes, library.mallinfo2.restype = [ctypes.c_void_p], _Counts
    taken: list[ctypes.c_void_p] = []
    for size in _HOLES:
        while True:
            before = library.mallinfo2()
            block = library.malloc(size)
            after = library.mallinfo2()
            if block is None or (after.arena, after.mapped) != (before.arena, before.mapped):
                library.free(block)
                break
            taken.append(block)
    library.malloc_trim(0)
    return taken
