"""LiteRT's ARM64 kernels, as a phone runs them, under emulation on this machine."""

from keraslight.export.litert.arm64._install import arm64_problem, install_arm64
from keraslight.export.litert.arm64._run import ARM64Run, run_on_arm64

__all__ = ["ARM64Run", "arm64_problem", "install_arm64", "run_on_arm64"]
