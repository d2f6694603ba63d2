"""How many CPUs there are, and how LiteRT's interpreters share them."""

import contextlib
import math
import os
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Number of CPUs that this process may use; all of the machine's CPUs if the system doesn't tell.

    A container's CPU limit counts, rounded up. `root` is the folder that holds `proc` and `sys`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(math.ceil(quota) for quota in _quotas(root))]))


def share_cpus(cpus: int, threads: int | None = None, interpreters: int | None = None) -> tuple[int, int]:
    """Returns threads per interpreter (default: half of `cpus`, 1 to 4), interpreters (default: a CPU per thread)."""
    threads = threads or min(max(cpus // 2, 1), 4)
    return threads, interpreters or max(1, cpus // threads)


def _quotas(root: Path) -> list[float]:
    """The CPUs that Linux' control groups grant: the process's own group and those around it, of both versions."""
    found: list[float] = []
    groups = [("", "")]  # controllers and path; in a container, its own group is the root of what it sees
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().split():
            _, controllers, path = line.split(":", 2)
            groups.append((controllers, path.strip("/")))
    base = root / "sys/fs/cgroup"
    for controllers, path in groups:
        folder = base if not controllers else base / controllers
        places = [folder / path, *(folder / parent for parent in Path(path).parents)] if path else [folder]
        for place in places:
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = (place / "cpu.max").read_text().split()
                found.append(int(quota) / int(period))  # "max" for none is a ValueError
    for place in [base / "cpu", base / "cpu,cpuacct", *(base / c / p for c, p in groups if "cpu" in c.split(","))]:
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            microseconds = int((place / "cpu.cfs_quota_us").read_text())  # -1 for none
            if microseconds > 0:
                found.append(microseconds / int((place / "cpu.cfs_period_us").read_text()))
    return [cpus for cpus in found if cpus > 0]
