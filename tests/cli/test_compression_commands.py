"""`keraslight prune`, `cluster`, `fuse` and `quantize` as a user types them; what they call is tested elsewhere."""

import gzip
import json
import math
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keraslight import compress
from keraslight.cli._forms import form
from keraslight.errors import InvalidArgumentError
from keraslight.export import arm64_problem, litert_report, read_metadata
from keraslight.training import load_run


@pytest.fixture(scope="module")
def cells(row):
    """The cells of a table row, without the ratios in parentheses."""
    return lambda text, name: [cell.split(" (")[0] for cell in row(text, name)]


MEASURES = ("accuracy", "same top-1", ".tflite", "gzip", "MACs", "non-zero MACs", "latency")


@pytest.fixture(scope="module")
def column(cells):
    """Measure -> cell of the column of a form in the table that compares two."""

    def column(text, name):
        place = next(line for line in text.splitlines() if line.startswith("┃ measure")).split("┃")[1:-1]
        number = [heading.strip() for heading in place].index(name)
        return {measure: cells(text, measure)[number] for measure in MEASURES}

    return column


@pytest.fixture(scope="module")
def trained(digits_run, tmp_path_factory):
    return shutil.copytree(digits_run[0], tmp_path_factory.mktemp("runs") / "float")


@pytest.fixture(scope="module")
def pruned(run, trained):
    folder = trained.parent / "pruned"
    options = ("--sparsity", 0.8, "--epochs", 4, "--scan")
    return folder, run("prune", trained, "--data", "digits", "--to", folder, *options)


def test_train_says_what_its_run_folder_says(digits_run):
    folder, result = digits_run
    details = load_run(folder)[1]
    assert Path(result["run_dir"]) == folder
    assert result["best_accuracy"] == pytest.approx(details["metrics"]["val_accuracy"])
    assert result["history"][result["best_epoch"] - 1]["val_accuracy"] == pytest.approx(result["best_accuracy"])
    assert (result["epochs"], result["train_count"], result["validation_count"]) == (4, 1438, 359)
    assert (result["skipped"], result["ignored"]) == (0, 0)


@pytest.mark.parametrize("nested", [False, True])
def test_multiply_adds_of_a_separable_convolution(tmp_path, nested):
    images = keras.Input((6, 6, 8))
    model = keras.Model(images, keras.layers.SeparableConv2D(16, 3, name="separable")(images))
    depthwise, pointwise, bias = model.get_layer("separable").get_weights()
    pointwise[..., :4] = 0
    model.get_layer("separable").set_weights([depthwise, pointwise, bias])
    if nested:
        images = keras.Input((6, 6, 8))
        model = keras.Model(images, model(keras.layers.RandomFlip()(images)))
    counted = form("pruned", tmp_path, model)
    assert counted.macs == 4 * 4 * (3 * 3 * 8 + 8 * 16)
    assert counted.nonzero_macs == 4 * 4 * (3 * 3 * 8 + 8 * 12)


def test_prune_writes_a_sparse_run_and_compares_it(column, trained, pruned):
    folder, text = pruned
    model, details = load_run(folder)
    report = compress.sparsity(model)
    assert report.total >= 0.8
    assert str(report).splitlines()[-1] in text
    before, after = column(text, "before"), column(text, "pruned")
    assert float(after["accuracy"].rstrip("%")) == pytest.approx(100 * details["metrics"]["val_accuracy"], abs=0.01)
    assert before["same top-1"] == "100.00%"
    content = (folder / "pruned.tflite").read_bytes()
    sizes = len(content), len(gzip.compress(content, mtime=0))
    assert [after[".tflite"], after["gzip"]] == [f"{size / 1e6:.3f} MB" for size in sizes]
    assert before["MACs"] == before["non-zero MACs"] == after["MACs"]
    assert float(after["non-zero MACs"].split()[0]) < 0.5 * float(after["MACs"].split()[0])
    assert all(cell.endswith("ms") for cell in (before["latency"], after["latency"]))
    assert max(map(len, text[text.index("┃ measure") :].splitlines()[:10])) <= 80
    for name in ("scan.png", "pruned_table.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    scan = (folder / "scan.txt").read_text(encoding="utf-8")
    assert scan.split()[-2:] == ["dense", before["accuracy"]]
    assert column((folder / "pruned_table.txt").read_text(encoding="utf-8"), "pruned") == after
    assert details["labels"] == load_run(trained)[1]["labels"]


def test_prune_for_a_phone(run, tmp_path):
    run("train", "mobilenet_v1_025", "--data", "digits", "--size", 48, "--epochs", 1, "--to", tmp_path / "run")
    options = ("--data", "digits", "--epochs", 1, "--for", "phone")
    text = run("prune", tmp_path / "run", "--to", tmp_path / "pruned", *options)
    assert "sparse on ARM: yes, 13 of 13 1x1 convolutions, 81% zeros" in " ".join(text.split())
    if problem := arm64_problem():
        assert problem in " ".join(text.split())
    else:
        assert "ARM64 instructions" in text
    kernels = compress.sparsity(load_run(tmp_path / "pruned")[0], policy="xnnpack")
    assert all(layer.fraction >= 0.79 for layer in kernels.layers)
    report = litert_report(tmp_path / "pruned" / "pruned.tflite")
    assert report.sparse.accepted
    assert report.metadata is None or report.metadata.labels


def test_networks_that_phones_do_not_run_sparsely_are_refused_before_training(run, trained, tmp_path):
    options = ("--data", "digits", "--to", tmp_path / "pruned", "--for", "phone")
    with pytest.raises(InvalidArgumentError, match="Received: 'lenet5_modern'; sparse on ARM: no, .*5x5 convolution"):
        run("prune", trained, *options)
    net = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(8, 5, strides=2),
            keras.layers.Conv2D(8, 1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="wide",
    )
    net.save(tmp_path / "wide.keras")
    message = r"ARM processors run sparsely. Received: 'wide'; sparse on ARM: no, .*5x5 convolution of stride 2"
    with pytest.raises(InvalidArgumentError, match=message):
        run("prune", tmp_path / "wide.keras", "--preprocessing", "unit", *options)
    with pytest.raises(InvalidArgumentError, match="`--for phone` chooses the layers. Received: --layer"):
        run("prune", trained, *options, "--two-of-four")
    assert not (tmp_path / "pruned").exists()


def test_fuse_keeps_every_answer(run, column, trained, tmp_path):
    result = json.loads(run("fuse", trained, "--data", "digits", "--to", tmp_path / "fused", "--json"))
    before, after = result["forms"]
    assert after["agreement"] == 1
    assert after["accuracy"] == before["accuracy"]
    assert Path(after["file"]) == tmp_path / "fused" / "fused.tflite"
    model, _ = load_run(tmp_path / "fused")
    assert result["layers"] == {"before": len(load_run(trained)[0].layers), "after": len(model.layers)}
    assert len(model.layers) < len(load_run(trained)[0].layers)
    shown = column((tmp_path / "fused" / "fused_table.txt").read_text(encoding="utf-8"), "fused")
    assert (shown["accuracy"], shown["same top-1"]) == (f"{after['accuracy']:.2%}", "100.00%")


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_quantize_writes_an_int8_file(run, column, pruned, tmp_path, method):
    file = tmp_path / "net.tflite"
    text = run("quantize", pruned[0], "--data", "digits", "--to", file, "--method", method, "--epochs", 1)
    assert list(read_metadata(file).labels) == load_run(pruned[0])[1]["labels"]
    kernels = [o for o in litert_report(file).operators if o.kind in ("CONV_2D", "FULLY_CONNECTED")]
    assert kernels
    assert all(operator.inputs[0] == "INT8" for operator in kernels)
    before, after = column(text, "before"), column(text, "int8")
    assert float(after["accuracy"].rstrip("%")) >= float(before["accuracy"].rstrip("%")) - 2
    assert float(after["non-zero MACs"].split()[0]) < 0.5 * float(after["MACs"].split()[0])  # the zeros are still there
    assert (tmp_path / "net_table.png").is_file()


def test_mixed_precision_keeps_to_a_bound(run, trained, tmp_path):
    options = ("--to", tmp_path / "net.tflite", "--mixed", 0.01, "--json")
    result = json.loads(run("quantize", trained, "--data", "digits", *options))
    before, after = result["forms"]
    assert after["name"] == "int8"
    assert after["accuracy"] >= before["accuracy"] - 0.01
    assert result["mixed"]["floats"] == []
    assert result["images"] == 359


def test_layers_stay_float_by_name(run, trained, tmp_path):
    last = [layer.name for layer in compress.sparsity(load_run(trained)[0], "*").layers][-1]
    run("quantize", trained, "--data", "digits", "--to", tmp_path / "net.tflite", "--skip", last)
    assert [operator.kind for operator in litert_report(tmp_path / "net.tflite").float_operators] == ["FULLY_CONNECTED"]


def test_mixed_precision_is_for_calibration_alone(run, trained, tmp_path):
    options = ("--data", "digits", "--to", tmp_path / "net.tflite", "--mixed", 0.01, "--method", "qat")
    text = "`--mixed` must come with `--method ptq` and without.*Received: --method q"
    with pytest.raises(InvalidArgumentError, match=text):
        run("quantize", trained, *options)


def test_cluster_writes_a_run_that_packs_small(run, cells, trained, tmp_path):
    folder = tmp_path / "clustered"
    text = run("cluster", trained, "--data", "digits", "--to", folder, "--clusters", 8, "--epochs", 1, "--json")
    result = json.loads(text)
    report = compress.cluster_report(load_run(folder)[0])
    assert max(layer.values for layer in report.layers) <= 8
    assert {layer["name"]: layer["values"] for layer in result["layers"]} == {
        layer.name: layer.values for layer in report.layers
    }
    before, after = result["forms"]
    assert after["accuracy"] >= before["accuracy"] - 0.02
    assert after["gzip_megabytes"] < 0.4 * before["gzip_megabytes"]
    assert (folder / "clustered_table.png").is_file()


def test_layers_by_pattern(run, trained, tmp_path):
    names = [layer.name for layer in compress.sparsity(load_run(trained)[0], "*").layers]
    options = ("--layer", f"{names[1]}=0.5", "--layer", f"{names[2]}=0.75", "--epochs", 1)
    result = json.loads(run("prune", trained, "--data", "digits", "--to", tmp_path / "layers", *options, "--json"))
    shares = [layer.fraction for layer in compress.sparsity(load_run(tmp_path / "layers")[0], "*").layers]
    assert shares[:3] == pytest.approx([0, 0.5, 0.75], abs=0.01)
    assert not any(shares[3:])
    assert [layer["zeros"] / math.prod(layer["shape"]) for layer in result["layers"]] == shares[1:3]


def test_a_pattern_needs_a_share(run, trained, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`--layer` must be PATTERN=SHARE.*Received: 'conv'"):
        run("prune", trained, "--data", "digits", "--to", tmp_path / "bad", "--layer", "conv")


@pytest.mark.parametrize("command", ["prune", "cluster", "quantize", "fuse"])
def test_help(run, command):
    assert command in run("--help")
    assert "RUN" in run(command, "--help")


def test_data_must_have_the_classes_of_the_run(run, trained, tmp_path):
    details = json.loads((trained / "model.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "best.keras").write_bytes((trained / "best.keras").read_bytes())
    (other / "model.json").write_text(json.dumps({**details, "labels": ["cat", "dog"]}))
    text = r"must have the classes of the run, \['cat', 'dog'\]. Received: \['0'"
    with pytest.raises(InvalidArgumentError, match=text):
        run("fuse", other, "--data", "digits", "--to", tmp_path / "fused")


def test_a_binary_model_of_a_file(run, column, tmp_path):
    """A single logit, of which nothing but `--task` says what it is: accuracy, labels and file are of two classes."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(level - 30, level + 30, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    images = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, strides=8, name="conv")(images))
    net = keras.Model(images, keras.layers.Dense(1, name="head")(x), name="net")
    kernel, bias = net.get_layer("conv").get_weights()
    net.get_layer("conv").set_weights([np.full_like(kernel, 1 / 27), bias])
    net.get_layer("head").set_weights([np.full((4, 1), 1.0, "float32"), np.array([-1.9], "float32")])
    net.save(tmp_path / "net.keras")
    source = (tmp_path / "net.keras", "--data", tmp_path / "photos", "--preprocessing", "unit")
    with pytest.raises(InvalidArgumentError, match="`task` must say what the outputs are"):
        run("fuse", *source, "--to", tmp_path / "fused")
    text = run("fuse", *source, "--to", tmp_path / "fused", "--task", "binary")
    assert column(text, "before")["accuracy"] == column(text, "fused")["accuracy"] == "100.00%"
    details = load_run(tmp_path / "fused")[1]
    assert details["task"] == "binary"
    run("export", tmp_path / "fused", "--to", tmp_path / "served" / "light")
    labels = (tmp_path / "served" / "light" / "1" / "assets" / "labels.txt").read_text()
    assert labels == "dark\nlight\n"
    pruned = run("prune", tmp_path / "fused", "--data", tmp_path / "photos", "--to", tmp_path / "pruned", "--epochs", 1)
    assert column(pruned, "before")["accuracy"] == "100.00%"


def test_shrink_removes_channels_and_fine_tunes(run, cells, trained, tmp_path):
    folder = tmp_path / "half"
    options = ("--to", folder, "--width", 0.5, "--epochs", 1)
    result = json.loads(run("shrink", trained, "--data", "digits", *options, "--json"))
    model, details = load_run(folder)
    groups = {group["name"]: group for group in result["groups"]}
    kept = json.loads((folder / "widths.json").read_text())
    assert kept == {name: group["left"] for name, group in groups.items() if group["removable"]}
    assert all(groups[name]["left"] == max(round(groups[name]["size"] / 2 + 1e-9), 1) for name in kept)
    assert groups["classifier"]["left"] == groups["classifier"]["size"] == 10
    assert "output" in groups["classifier"]["reason"]
    assert result["after"]["parameters"] < result["before"]["parameters"] / 2
    assert result["after"]["macs"] < result["before"]["macs"] / 2
    assert [form["name"] for form in result["forms"]] == ["before", "shrunk"]
    assert result["forms"][1]["macs"] == result["after"]["macs"]
    assert details["metrics"]["val_accuracy"] == result["forms"][1]["accuracy"]
    assert (folder / "shrunk.tflite").exists()
    # The widths that it wrote give the same model again, here without fine-tuning.
    again = tmp_path / "again"
    widths = ("--widths", folder / "widths.json", "--choice", "uniform", "--epochs", 0)
    text = run("shrink", trained, "--data", "digits", "--to", again, *widths)
    assert [w.shape for w in load_run(again)[0].weights] == [w.shape for w in model.weights]
    name, group = next((name, group) for name, group in groups.items() if group["removable"])
    assert cells(text, name)[:4] == [name, str(len(group["layers"])), str(group["size"]), str(group["left"])]


def test_netadapt_narrows_to_a_latency_and_resumes(run, cells, trained, tmp_path):
    folder = tmp_path / "small"
    options = ("--to", folder, "--budget", 0.85, "--step", 0.08, "--steps", 2, "--epochs", 1)
    result = json.loads(run("netadapt", trained, "--data", "digits", *options, "--json"))
    first, *rows = result["iterations"]
    assert rows[-1]["resource"] <= result["budget"] == pytest.approx(0.85 * first["resource"])
    model, details = load_run(folder)
    assert details["metrics"]["val_accuracy"] == result["forms"][1]["accuracy"]
    assert [form["name"] for form in result["forms"]] == ["before", "adapted"]
    assert result["forms"][1]["macs"] < result["forms"][0]["macs"]
    assert (folder / "adapted.tflite").exists()
    widths = json.loads((folder / "netadapt" / "widths.json").read_text())
    assert widths == {name: pair["after"] for name, pair in result["widths"].items()}
    assert list((folder / "operations").glob("*.json"))  # so that a resumed search finds the same latencies
    # The same command again has nothing left to do.
    weights = model.get_weights()
    text = run("netadapt", trained, "--data", "digits", *options)
    again = load_run(folder)[0].get_weights()
    assert all(map(np.array_equal, again, weights))
    assert f"-> {rows[-1]['now']} " in text
    with pytest.raises(InvalidArgumentError, match=re.escape("where seed differ.")) as error:
        run("netadapt", trained, "--data", "digits", *options, "--seed", 1)
    assert "pass another `--to` or `--fresh`" in str(error.value)
    with pytest.raises(InvalidArgumentError, match="`--int8` is for `--metric latency`"):
        run("netadapt", trained, "--data", "digits", "--to", tmp_path / "new", "--metric", "macs", "--int8")
    with pytest.raises(InvalidArgumentError, match="`--teacher` needs `--epochs` of at least 1"):
        run("netadapt", trained, "--data", "digits", "--to", tmp_path / "new", "--epochs", 0, "--teacher", trained)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "Either `--width` or `--widths`"),
        (("--width", 0.5, "--widths", "{}"), "Either `--width` or `--widths`"),
        (("--width", 1.5), "at most 1. Received: 1.5"),
        (("--widths", "nothing"), "must be a JSON file. Received: "),
        (("--widths", "[1]"), "must be a JSON object"),
        (("--widths", '{"classifier": 5}'), "must be removable to be shrunk. Received: 'classifier'"),
        (("--width", 0.5, "--epochs", 0, "--teacher", "lenet5_modern"), "`--teacher` needs `--epochs` of at least 1"),
    ],
)
def test_shrink_needs_widths_that_fit(run, trained, tmp_path, options, text):
    file = tmp_path / "widths.json"
    options = list(options)
    if "--widths" in options:
        place = options.index("--widths") + 1
        file.write_text(options[place])
        options[place] = file
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        run("shrink", trained, "--data", "digits", "--to", tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()
