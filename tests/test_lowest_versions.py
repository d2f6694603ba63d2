"""Both packages with the lowest versions that pyproject.toml allows, in environments that `make test-all` sets up."""

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = {
    "all": [str(Path(__file__).parent / "lowest_versions.py")],
    "cli": [
        "-c",
        "import sys\n"
        "from keraslight.cli import main\n"
        "for text in ('list', 'info vgg11', '--help', 'prune --help'):\n"
        "    sys.argv = ['keraslight', *text.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, end.code",
    ],
    "rest": [
        "-c",
        "from keraslight_serving.client import ClassifierClient\n"
        "for target in ('http://localhost:1', 'localhost:1'): ClassifierClient(target).close()",
    ],
    "telemetry": [
        "-c",
        "from keraslight_serving.client.telemetry import opentelemetry_hook, prometheus_hook\n"
        "opentelemetry_hook(), prometheus_hook()",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", RUNS)
def test_both_packages_work_with_the_lowest_versions(extra):
    python = Path(sys.prefix, "lowest", extra, "bin", "python")
    if not python.exists():
        pytest.fail(f"An environment is missing: {python}. `make test-all` sets it up.")
    done = subprocess.run([python, *RUNS[extra]], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
