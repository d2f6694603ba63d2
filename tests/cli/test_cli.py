"""The commands as a user types them; what they call is tested elsewhere."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from keraslight.cli.app import app
from keraslight.errors import InvalidArgumentError

runner = CliRunner()


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """Tables must not be wrapped in the middle of what a test looks for."""
    for module in ("app", "convert", "export"):
        monkeypatch.setattr(f"keraslight.cli.{module}.console", Console(width=250))


def run(*arguments, code=0):
    result = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_help_lists_and_explains_the_commands():
    text = run("--help")
    commands = (
        "list info show compare train export versions serve litert onnx prune quantize fuse classify load-test demo"
    )
    for command in commands.split():
        assert command in text
        assert "Usage" in run(command, "--help")


def test_list_and_info():
    assert "mobilenet_v4_hybrid_medium" in run("list", "*hybrid*")
    assert "3,774,024" in run("info", "timm/mobilenetv4_conv_small")


def test_show_and_compare():
    text = run("show", "mobilenet_v4_conv_small")
    assert "stage2_block0" in text
    assert "14x14x96" in text
    assert "3,774,024" in text
    assert "186,005,568" in text
    text = run("compare", "mobilenet_v4_conv_small", "mobilenet_v4_conv_medium")
    assert "9.72 M (2.57)" in text
    assert "1,080 M (5.81)" in text


def test_an_error_is_one_line_and_exit_code_1():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from keraslight.cli import main; sys.argv[1:] = ['info', 'nonet']; main()"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "UnknownModelError: No model has this name." in done.stderr
    assert "Traceback" not in done.stderr


def test_train_export_convert_classify(tmp_path):
    from keraslight_serving.server import ModelServer

    folder = tmp_path / "run"
    text = run("train", "mobilenet_v4_conv_small", "--data", "digits", "--size", 32, "--epochs", 1, "--to", folder)
    assert "Best epoch 1 of 1" in text

    text = run("export", folder, "--to", tmp_path / "savedmodels" / "digits")
    assert "--model_name=digits" in text
    assert (tmp_path / "savedmodels/digits/1/saved_model.pb").is_file()

    file = tmp_path / "digits.tflite"
    with pytest.raises(InvalidArgumentError, match="int8 needs images that set its ranges"):
        run("litert", folder, "--to", file, "--quantization", "int8")
    run("litert", folder, "--to", file, "--quantization", "int8", "--data", "digits", "--input-dtype", "uint8")
    assert 0 < file.stat().st_size < 5e6
    assert "10 classes, int8, made with keraslight. 10 labels" in run("litert", file, "--report", "--threads", 1)

    image = tmp_path / "digit.png"
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(image)
    with ModelServer("digits", tmp_path / "savedmodels/digits", port=0) as server:
        arguments = ("classify", image, "--server", server.address, "--model", "digits")
        (line,) = run(*arguments, "--json", "--top", 3).splitlines()
        answer = json.loads(line)
        assert answer["image"] == str(image)
        assert len(answer["classes"]) == 3
        assert answer["classes"][0]["label"] in "0123456789"
        assert "digit.png" in run(*arguments)
        unknown = runner.invoke(app, ["classify", str(image), "--server", server.address, "--model", "other"])
    assert unknown.exit_code == 1
    assert "ModelNotFound" in unknown.output


def test_no_server_is_said(tmp_path):
    image = tmp_path / "digit.png"
    Image.new("L", (8, 8)).save(image)
    result = runner.invoke(app, ["classify", str(image), "--server", "127.0.0.1:1", "--model", "digits"])
    assert result.exit_code == 1
    assert "Unavailable" in result.output
