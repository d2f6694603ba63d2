"""What importing costs, and the import contracts."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_neither_tensorflow_nor_keras():
    loaded = python("import keraslight, sys; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))")
    assert loaded == "[]"


def test_import_adds_no_module_beyond_the_standard_library():
    # The time budget (0.1 s over numpy) is measured by benchmarks/import_time.py; what costs time is what is imported.
    code = "import sys; before = set(sys.modules); import keraslight; new = {m.split('.')[0] for m in sys.modules} - {m.split('.')[0] for m in before}; print(sorted(new - set(sys.stdlib_module_names)))"  # noqa: E501
    assert python(code) == "['keraslight']"


@pytest.mark.parametrize("name", ["create_model", "list_models", "model_info", "MobileNetV4", "compress", "export"])
def test_public_names_are_listed_and_load(name):
    import keraslight

    assert name in dir(keraslight)
    assert getattr(keraslight, name) is not None


def test_unknown_attribute():
    import keraslight

    with pytest.raises(AttributeError, match="module 'keraslight' has no attribute 'MobileNetV9'"):
        _ = keraslight.MobileNetV9


def test_missing_extra_is_named():
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "import keraslight\n"
        "try: keraslight.create_model\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    assert python(code) == (
        "MissingDependencyError keraslight.create_model needs keras, which is not installed: "
        'pip install "keraslight[models]".'
    )


def test_import_contracts_hold():
    # In a process of its own: import-linter turns off all loggers that exist.
    code = "from importlinter.cli import lint_imports; print(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "0", run.stdout + run.stderr
