"""How many CPUs there are, and how LiteRT's interpreters share them."""

import os


def available_cpus() -> int:
    """Number of CPUs that this process may use; all of the machine's CPUs if the system doesn't tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cpus(cpus: int, threads: int | None = None, interpreters: int | None = None) -> tuple[int, int]:
    """Returns threads per interpreter (default: half of `cpus`, 1 to 4), interpreters (default: a CPU per thread)."""
    threads = threads or min(max(cpus // 2, 1), 4)
    return threads, interpreters or max(1, cpus // threads)
