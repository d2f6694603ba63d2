"""Memory that the converter leaves behind."""

import ctypes
import gc
import sys


def return_free_memory() -> None:
    """Frees what only reference cycles hold, and gives the C library's free memory back to the system.

    TensorFlow's converter allocates some thirty times the size of a model. It frees most of that, and glibc keeps it
    for the process: 2.8 GB after a ResNet-50 (measured). Other C libraries have no such call, and need none.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
