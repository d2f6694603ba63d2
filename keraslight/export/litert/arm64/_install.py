"""Puts together a system that runs LiteRT's ARM64 build on this machine: QEMU, an ARM64 Python, and ARM64 wheels.

Everything lies in one folder and needs no rights: apt downloads packages with an empty state of its own, so it finds
all that they depend on, and dpkg only unpacks them. QEMU runs by the loader and the libraries that come with it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from keraslight.errors import ExportError, MissingDependencyError

LIBRARY = "libpywrap_litert_common.so"
"""The library of LiteRT's wheel that holds its kernels."""

_EMULATOR = "qemu-aarch64"
_TOOLS = ("apt-get", "dpkg", "cc", "nm")
_PLATFORMS = ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64")
_WHEELS = ("numpy", "flatbuffers", "protobuf", "backports.strenum", "tqdm", "typing_extensions")
# LiteRT asks Linux what processor it has, and crashes at the text of another architecture. QEMU's `-cpu` has no say in
# it, but a file of the guest's root goes before this machine's: an ARM Cortex-A76 with two cores.
_PROCESSOR = """processor\t: {number}
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0

"""


def rig_folder() -> Path:
    """Where the emulated system of this Python environment lies."""
    return Path(sys.prefix) / "arm64"


def arm64_problem() -> str:
    """Why `run_on_arm64` can't run here, and what to do about it; "" if it can."""
    if (rig_folder() / "complete").is_file():
        return ""
    return _obstacle() or "the emulated ARM64 system is not installed; run `keraslight install-arm64`"


def _obstacle() -> str:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the emulated ARM64 system needs Linux on x86-64; this is {sys.platform} on {platform.machine()}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"the emulated ARM64 system needs Debian's {', '.join(missing)}, which are missing" if missing else ""


def install_arm64(report: Callable[[str], None] = print) -> Path:
    """Installs a system that runs LiteRT's ARM64 build under QEMU, in this Python environment's folder `arm64`.

    Downloads 60 MB from the package sources of this Debian and from pip's index, which take 250 MB unpacked. Needs no
    rights. An older system there is replaced when the new one is complete.

    Args:
        report: Called with a line before each step.

    Returns:
        The folder.

    Raises:
        MissingDependencyError: This is not a Debian-like Linux on x86-64, or its tools are missing.
        ExportError: A download or a build fails, or the complete system can't run.
    """
    if problem := _obstacle():
        raise MissingDependencyError(f"Running on ARM64 kernels needs an emulator. Received: {problem}.")
    folder = rig_folder()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="arm64.") as place:
        made = Path(place)
        report("QEMU and its libraries (Debian's qemu-user)")
        _unpack(made / "host", "amd64", ["qemu-user"])
        for emulator in (made / "host/usr/bin").glob("qemu-*"):
            if emulator.name != _EMULATOR:
                emulator.unlink()  # of other processors, 150 MB
        report("ARM64 Python (Debian's python3-minimal)")
        _unpack(made / "guest", "arm64", ["python3-minimal", "libpython3-stdlib", "libstdc++6"])
        (made / "guest/proc").mkdir()
        (made / "guest/proc/cpuinfo").write_text("".join(_PROCESSOR.format(number=number) for number in range(2)))
        report("ARM64 wheels of LiteRT and NumPy")
        _wheels(made)
        report("Plugin that counts instructions")
        plugin = Path(__file__).with_name("_count.c")
        _run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made / "count.so"), str(plugin)])
        symbols = _run(["nm", "--defined-only", str(made / "site/ai_edge_litert" / LIBRARY)])
        (made / "symbols.txt").write_text(symbols)
        _run([*command(made), "-c", "import ai_edge_litert.interpreter"])
        (made / "complete").touch()
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
        made.mkdir()  # for the end of the `with`
    return folder


def command(folder: Path, count_to: Path | None = None) -> list[str]:
    """The command that starts the emulated Python; with `count_to` it counts instructions."""
    host, guest = folder / "host", folder / "guest"
    libraries = ":".join(str(host / path) for path in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    python = os.path.realpath(guest / "usr/bin/python3")
    loader = str(host / "lib64/ld-linux-x86-64.so.2")
    qemu = [loader, "--library-path", libraries, str(host / "usr/bin" / _EMULATOR), "-cpu", "cortex-a76"]
    plugin = [] if count_to is None else ["-plugin", f"{folder / 'count.so'},to={count_to}"]
    environment = {"PYTHONPATH": str(folder / "site"), "OPENBLAS_NUM_THREADS": "1"}
    settings = [part for name, value in environment.items() for part in ("-E", f"{name}={value}")]
    return [*qemu, "-L", str(guest), *settings, *plugin, python]


def _unpack(folder: Path, architecture: str, packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        for path in ("lists/partial", "archives/partial"):
            Path(place, path).mkdir(parents=True)
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "",
            "Dir::State": place,
            "Dir::State::status": "/dev/null",
            "Dir::State::lists": f"{place}/lists",
            "Dir::Cache": place,
            "Dir::Cache::archives": f"{place}/archives",
            "Debug::NoLocking": "1",
        }
        apt = ["apt-get", "--quiet=2", *(f"-o{name}={value}" for name, value in settings.items())]
        _run([*apt, "update"])
        _run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *packages])
        for archive in sorted(Path(place, "archives").glob("*.deb")):
            _run(["dpkg", "--extract", str(archive), str(folder)])


def _wheels(folder: Path) -> None:
    version = os.path.basename(os.path.realpath(folder / "guest/usr/bin/python3")).removeprefix("python")
    litert = f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}"
    _run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        + ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
        + [f"--platform={name}" for name in _PLATFORMS]
        + [f"--target={folder / 'site'}", litert, *_WHEELS]
    )


def _run(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ExportError(
            f"Each step of the installation must succeed. Received: {' '.join(arguments[:3])} ... ended with "
            f"{done.returncode}: {said[-1] if said else 'no message'}"
        )
    return done.stdout
