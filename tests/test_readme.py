"""The README's examples run as they stand, one after the other in one folder, as a reader would."""

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

README = Path(__file__).parent.parent / "README.md"


def test_examples(tmp_path):
    examples = re.findall(r"<!-- tested -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 4
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
    assert (tmp_path / "runs/architecture.png").is_file()
    assert (tmp_path / "savedmodels/readme/1/saved_model.pb").is_file()
    assert (tmp_path / "runs/readme/digits_int8.tflite").is_file()
