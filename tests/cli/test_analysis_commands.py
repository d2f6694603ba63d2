"""`keraslight profile`, `receptive-field`, `latency` and `lint-model`; what they call is tested elsewhere."""

import json

import pytest

from keraslight.errors import InvalidArgumentError, UnknownModelError


def test_profile_lists_blocks_and_totals(run, row):
    text = run("profile", "mobilenet_v4_conv_small")
    assert row(text, "stem")[2:5] == ["112x112x32", "928", "10,838,016"]  # 27 * 32 and a batch norm's 64
    assert row(text, "total")[3:5] == ["3,774,024", "186,005,568"]
    assert "Peak activation memory: " in text


def test_profile_lists_stages_or_layers_at_another_size(run, row):
    text = run("profile", "mobilenet_v4_conv_small", "--size", 64, "--by", "stage")
    assert row(text, "stage2")[2] == "4x4x96"
    text = run("profile", "mobilenet_v4_conv_small", "--size", 64, "--by", "layer")
    assert row(text, "stem_bn")[1:4] == ["BatchNorm", "32x32x32", "64"]


def test_receptive_field_leaves_out_layers_that_see_the_same(run, row):
    text = run("receptive-field", "resnet18", "--size", 64)
    assert row(text, "images")[1:] == ["1x1", "1x1", "0, 0", "1x1"]
    assert row(text, "stem")[1:] == ["7x7", "2x2", "0, 0", "7x7"]
    assert row(text, "pool")[1:] == ["the whole image", "", "", ""]
    assert "stem_bn" not in text


def test_receptive_field_of_all_layers(run, row):
    assert row(run("receptive-field", "resnet18", "--size", 64, "--all"), "stem_bn")[1:] == [
        "7x7",
        "2x2",
        "0, 0",
        "7x7",
    ]


def test_convolution_cost_by_hand(run, row):
    text = run("convolution-cost", "--kernel", 3, "--channels", 8, "--channels", 64, "--size", 10, "--groups", 2)
    assert row(text, "3x3", 0) == ["3x3", "8", "0.06 M", "23.6%", "50.0%", "56.2%"]  # 1 / 8 + 1 / 9
    assert row(text, "3x3", 1)[1:4] == ["64", "3.69 M", "12.7%"]
    shown = json.loads(run("convolution-cost", "--kernel", 5, "--channels", 4, "--size", 3, "--json"))
    assert shown[0]["standard"] == {"macs": 9 * 4 * 4 * 25, "parameters": 400, "ratio": 1.0}
    assert len(json.loads(run("convolution-cost", "--json"))) == 15


def test_latency_of_all_engines(run, row):
    text = run("latency", "lenet5_modern", "--size", 32, "--batch", 2, "--repeats", 2, "--threads", 1)
    assert "lenet5_modern, 2 x 32 px" in text
    for engine, threads in (("keras", "TensorFlow's"), ("saved_model", "TensorFlow's"), ("litert", "1")):
        name, given, *numbers = row(text, engine)
        assert (name, given) == (engine, threads)
        p50, p90, p99, rate = (float(number.replace(",", "")) for number in numbers)
        assert 0 < p50 <= p90 <= p99
        assert 2000 / (p50 + 0.005) - 1 <= rate <= 2000 / (p50 - 0.005) + 1  # as exact as what is printed


def test_latency_of_one_engine(run, row):
    text = run("latency", "lenet5_modern", "--engine", "litert", "--threads", 2, "--repeats", 1)
    assert row(text, "litert")[1] == "2"
    assert "keras " not in text


def test_lint_model_exits_with_1_and_lists_its_findings(run, row):
    text = run("lint-model", "mobilenet_v2_100", code=1)
    assert "G1 Equal channel widths move the least memory" in text
    assert text.count("Kept.") == 3
    detail, macs, moved, least, ratio, extra = row(text, "stage1_block0_expand")[1:]
    assert (detail, macs, moved, ratio) == ("16 -> 96 channels", "19,267,584", "5,494.0", "1.43")
    assert float(least.replace(",", "")) == pytest.approx(5494 / 1.428, rel=1e-3)
    assert float(extra) >= 0
    assert row(text, "22 findings")[1].endswith("% of the model's memory access")
    assert "GB/s that one thread copies here" in text


def test_lint_model_checks_only_the_selected_guidelines(run):
    text = run("lint-model", "mobilenet_v2_100", "--select", "G2", "--select", "G3")
    assert text.count("Kept.") == 2
    assert "G1" not in text


def test_lint_model_exits_with_0_in_spite_of_findings(run, row):
    text = run("lint-model", "googlenet", "--select", "G3", "--exit-zero")
    assert row(text, "9 findings")[1] == ""  # starts and waits, no memory
    assert "microseconds for each start within a block" in text


@pytest.mark.parametrize("command", ["profile", "receptive-field", "latency", "lint-model"])
def test_help_and_unknown_names(run, command):
    assert command in run("--help")
    assert "MODEL" in run(command, "--help")
    with pytest.raises(UnknownModelError, match="No model has this name"):
        run(command, "nonet")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [("profile", "--by", "row"), ("latency", "--engine", "onnx"), ("lint-model", "--select", "G5")],
)
def test_unknown_choices(run, command, option, value):
    assert f"Invalid value for '{option}'" in run(command, "lenet5_modern", option, value, code=2)


def test_operations_lists_the_slowest_of_a_file(run, tmp_path, row):
    from keraslight.export.litert.operators import pointwise_graph

    file = tmp_path / "one.tflite"
    file.write_bytes(pointwise_graph(4, 8).content())
    text = run("operations", file, "--repeats", 1, "--plot", tmp_path / "one.svg")
    assert row(text, "")[1:4] == ["CONV_2D", "4x4x8", "1,024"]
    assert (tmp_path / "one.svg").stat().st_size
    given = json.loads(run("operations", file, "--repeats", 1, "--table", tmp_path / "tables", "--json"))
    assert given["table_ms"] >= given["operations"][0]["ms"]
    assert given["operations"][0]["macs"] == 1024
    assert len(list((tmp_path / "tables").glob("*.json"))) == 1
    with pytest.raises(InvalidArgumentError, match=r"has a dtype and a size of its own. Received: .*one.tflite"):
        run("operations", file, "--int8")
