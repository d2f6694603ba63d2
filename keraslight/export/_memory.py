"""Returns the memory that the converters leave behind."""

import ctypes
import gc
import sys

from tensorflow.python.eager import context  # no public name; Keras' `clear_session` takes it from here as well


def return_free_memory() -> None:
    """Collects reference cycles, empties TensorFlow's kernel cache, and returns the C library's free memory.

    TensorFlow's converter allocates about thirty times the size of a model. It frees most of that, but glibc keeps it
    for the process: 2.8 GB after a ResNet-50 (measured). Other C libraries neither have nor need such a call.

    Eager TensorFlow keeps the kernel that created a variable, under the variable's name, for the life of the process:
    a quarter of a megabyte for each net of eight variables (measured), and conversions copy nets. Kernels that are
    needed again are made again, which takes microseconds.
    """
    gc.collect()
    context.context().clear_kernel_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
