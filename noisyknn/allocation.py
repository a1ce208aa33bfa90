"""How a process of its own takes memory from the system: seldom, and in large pages.

Training frees and takes again the same tensors at every step. As it comes, the C library gives large ones back, and the
system clears every page of 4 KiB anew when it is next touched.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Keep memory that is freed for what is allocated next, and ask for huge pages for large tensors.

    Holds for the whole process, from the first tensor on: for programs, not for libraries. C libraries other than glibc
    go on as before, as do systems that have no huge pages to give.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch when it first allocates
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, -1)
        mallopt(MMAP_MAX, 0)
        mallopt(ARENA_MAX, 1)  # others than the main arena cannot grow beyond 64 MiB
