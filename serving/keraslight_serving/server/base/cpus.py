"""How many CPUs there are, and how the interpreters of LiteRT share them."""

import os


def available_cpus() -> int:
    """Those that this process may run on; where the system does not tell, all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cpus(cpus: int, threads: int | None = None, interpreters: int | None = None) -> tuple[int, int]:
    """The threads of one interpreter, and the number of interpreters; what is given stays as it is.

    Args:
        cpus: to be shared, at least 1.
        threads: default: half of the CPUs, 1 to 4.
        interpreters: default: as many as have a CPU for each of their threads.
    """
    threads = threads or min(max(cpus // 2, 1), 4)
    return threads, interpreters or max(1, cpus // threads)
