"""`keraslight profile`, `receptive-field`, `latency` and `lint-model` as typed; what they call is tested elsewhere."""

import pytest
from rich.console import Console
from typer.testing import CliRunner

from keraslight.cli.app import app
from keraslight.errors import UnknownModelError


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """Tables must not be wrapped in the middle of what a test looks for."""
    monkeypatch.setattr("keraslight.cli.app.console", Console(width=250))


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def row(text, name):
    """The cells of the line that begins with a name."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line[1:-1].split("│")]


def test_profile():
    text = run("profile", "mobilenet_v4_conv_small")
    assert row(text, "stem")[2:5] == ["112x112x32", "928", "10,838,016"]  # 27 * 32 and a batch norm's 64
    assert row(text, "total")[3:5] == ["3,774,024", "186,005,568"]
    assert "Peak activation memory: " in text
    text = run("profile", "mobilenet_v4_conv_small", "--size", 64, "--by", "stage")
    assert row(text, "stage2")[2] == "4x4x96"
    text = run("profile", "mobilenet_v4_conv_small", "--size", 64, "--by", "layer")
    assert row(text, "stem_bn")[1:4] == ["BatchNorm", "32x32x32", "64"]


def test_receptive_field():
    text = run("receptive-field", "resnet18", "--size", 64)
    assert row(text, "images")[1:] == ["1x1", "1x1", "0, 0"]
    assert row(text, "stem")[1:] == ["7x7", "2x2", "0, 0"]
    assert row(text, "pool")[1:] == ["the whole image", "", ""]
    assert "stem_bn" not in text
    assert row(run("receptive-field", "resnet18", "--size", 64, "--all"), "stem_bn")[1:] == ["7x7", "2x2", "0, 0"]


def test_latency():
    text = run("latency", "shufflenet_v1_g3_050", "--size", 32, "--batch", 2, "--repeats", 2, "--threads", 1)
    assert "shufflenet_v1_g3_050, 2 x 32 px" in text
    for engine, threads in (("keras", "TensorFlow's"), ("saved_model", "TensorFlow's"), ("litert", "1")):
        name, given, *numbers = row(text, engine)
        assert (name, given) == (engine, threads)
        p50, p90, p99, rate = (float(number.replace(",", "")) for number in numbers)
        assert 0 < p50 <= p90 <= p99
        assert 2000 / (p50 + 0.005) - 1 <= rate <= 2000 / (p50 - 0.005) + 1  # as exact as what is printed
    text = run("latency", "lenet5_modern", "--engine", "litert", "--threads", 2, "--repeats", 1)
    assert row(text, "litert")[1] == "2"
    assert "keras " not in text
    assert "Invalid value for '--engine'" in run("latency", "lenet5_modern", "--engine", "onnx", code=2)


def test_lint_model():
    text = run("lint-model", "mobilenet_v2_100", code=1)
    assert "G1 Equal channel widths move the least memory" in text
    assert text.count("Kept.") == 3
    detail, macs, moved, least, ratio, extra = row(text, "stage1_block0_expand")[1:]
    assert (detail, macs, moved, ratio) == ("16 -> 96 channels", "19,267,584", "5,494.0", "1.43")
    assert float(least.replace(",", "")) == pytest.approx(5494 / 1.428, rel=1e-3)
    assert float(extra) >= 0
    assert row(text, "22 findings")[1].endswith("% of the model's memory access")
    assert "GB/s that one thread copies here" in text
    text = run("lint-model", "mobilenet_v2_100", "--select", "G2", "--select", "G3")
    assert text.count("Kept.") == 2
    assert "G1" not in text
    text = run("lint-model", "googlenet", "--select", "G3", "--exit-zero")
    assert row(text, "9 findings")[1] == ""  # starts and waits, no memory
    assert "microseconds for each start within a block" in text
    assert "Invalid value for '--select'" in run("lint-model", "googlenet", "--select", "G5", code=2)


def test_help_and_unknown_names():
    for command in ("profile", "receptive-field", "latency", "lint-model"):
        assert command in run("--help")
        assert "MODEL" in run(command, "--help")
        with pytest.raises(UnknownModelError, match="No model has this name"):
            run(command, "nonet")
    assert "Invalid value for '--by'" in run("profile", "resnet18", "--by", "row", code=2)
