"""The examples of the README and docs/serving.md run as they stand, one after the other in one folder."""

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent


def examples_of(page):
    return re.findall(r"<!-- tested -->\n```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_examples(tmp_path):
    examples = examples_of("README.md") + examples_of("docs/serving.md")
    assert len(examples) == 4 + 1
    printed = []
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(tmp_path / "digit.png")
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{example}\n{done.stderr[-3000:]}"
        printed.append(done.stdout)
    assert "('0'," in printed[2]  # the labels of the client's answer
    assert "0.12" in printed[3]  # 1/64 + 1/9
    ranked, kept, refused, shape, by_stubs = printed[4].splitlines()
    assert (ranked.split()[0], refused, shape) == (kept, "refused", "(2, 10)")
    assert by_stubs == kept
    assert (tmp_path / "runs/architecture.png").is_file()
    assert (tmp_path / "savedmodels/readme/1/saved_model.pb").is_file()
    assert (tmp_path / "runs/readme/digits_int8.tflite").is_file()
