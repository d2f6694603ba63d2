"""Returns the memory that the converter leaves behind."""

import ctypes
import gc
import sys


def return_free_memory() -> None:
    """Collects reference cycles and returns the C library's free memory to the system.

    TensorFlow's converter allocates about thirty times the size of a model. It frees most of that, but glibc keeps it
    for the process: 2.8 GB after a ResNet-50 (measured). Other C libraries neither have nor need such a call.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
