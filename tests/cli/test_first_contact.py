"""What a stranger meets first: lists, details, typos, help and version, without waiting for Keras."""

import json
import subprocess
import sys

import pytest

import keraslight
from keraslight.errors import UnknownModelError

CODE = """
import resource, sys
sys.argv = ["keraslight", *{arguments!r}]
from keraslight.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({{"keras", "tensorflow", "numpy", "jax"}} & set(sys.modules))
    print("\\n@", heavy, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


def keraslight_command(*arguments, **environment):
    """Runs the command in a process of its own: what it prints, what it loads, and its CPU time in seconds."""
    import os

    run = subprocess.run(
        [sys.executable, "-c", CODE.format(arguments=arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    error, _, rest = run.stderr.rpartition("\n@ ")
    loaded, _, seconds = rest.splitlines()[0].rpartition(" ")
    error += "\n".join(["", *rest.splitlines()[1:]])
    return run.returncode, run.stdout, error.strip(), loaded, float(seconds)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["list"], 0, "mobilenet_v3_large_minimalistic"),
        (["list", "--json"], 0, '"timm/mobilenetv4_conv_small.e2400_r224_in1k"'),
        (["info", "timm/resnet50"], 0, "25,557,032"),
        (["compare", "resnet18", "vgg16"], 0, "138.36 M (11.84)"),
        (["--version"], 0, f"keraslight {keraslight.__version__}"),
        (["--help"], 0, "Make smaller"),
        (["train", "--help"], 0, "default"),
        (["train", "mobilnet_v4", "--data", "digits"], 1, "mobilenet_v4_conv_small"),
        (["export", "resnet-50", "--to", "nowhere"], 1, "resnet50"),
        (["litert", "vgg-16", "--to", "nowhere.tflite"], 1, "vgg16"),
        (["profile", "lenet"], 1, "lenet5_paper"),
        (["latency", "lenet"], 1, "lenet5_paper"),
        (["list", "convnextv2"], 1, "convnext_v2_atto"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_answers_without_keras(arguments, code, text):
    returned, out, error, loaded, _ = keraslight_command(*arguments)
    assert returned == code, error
    assert text in (error if code else out)
    assert loaded == "[]"
    assert "Traceback" not in error


def test_the_list_takes_little_longer_than_loading_the_library_that_prints_it():
    """A ratio, because the same start takes 0.3 seconds of CPU on a free machine and 0.8 on a busy one."""
    libraries = "import resource, typer, rich.table; print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))"
    pairs = [
        (keraslight_command("list")[4], float(subprocess.check_output([sys.executable, "-c", libraries])))
        for _ in range(4)
    ]
    assert min(pair[0] for pair in pairs) < 4 * min(pair[1] for pair in pairs)  # about 3; Keras alone is 50


@pytest.mark.parametrize("columns", ["80", "60", "200"])
def test_the_list_never_cuts_a_name(columns):
    listed = keraslight_command("list", COLUMNS=columns)[1].splitlines()[1:]
    assert [line.split()[0] for line in listed] == keraslight.list_models()
    assert "…" not in "".join(listed)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_detectors_and_segmenters_are_listed_by_their_task(task):
    listed = keraslight_command("list", "--task", task)[1].splitlines()[1:]
    assert [line.split()[0] for line in listed] == keraslight.list_models(task=task)


@pytest.mark.parametrize("command", ["show", "profile", "receptive-field"])
def test_tables_never_cut_the_names_of_layers(run, command, monkeypatch):
    from keraslight.cli import _common

    monkeypatch.setattr(_common.console, "width", 80)
    text = run(command, "mobilenet_v4_conv_small", "--size", 32)
    assert "stage2_block0" in text
    assert "…" not in text


def test_an_empty_list_is_an_error_that_names_the_nearest(run):
    with pytest.raises(UnknownModelError, match=r"matches the pattern.*: mobilenet_v4_conv_small.*Received: 'mobilnet"):
        run("list", "mobilnet_v4*")


def test_json_of_the_list_has_the_figures_of_model_info(run):
    [row] = json.loads(run("list", "ghostnet_100", "--json"))
    info = keraslight.model_info("ghostnet_100")
    assert row == {name: getattr(info, name) for name in row}
    assert {"name", "parameters", "macs", "top1", "checkpoint"} <= set(row)


@pytest.mark.parametrize("command", ["info", "show", "profile", "receptive-field", "lint-model", "latency"])
def test_every_table_is_printed_as_json_too(run, command):
    options = {
        "latency": ("--engine", "litert", "--repeats", 2, "--threads", 1, "--size", 32),
        "lint-model": ("--exit-zero", "--size", 32),
        "info": (),
    }.get(command, ("--size", 32))
    content = json.loads(run(command, "mobilenet_v4_conv_small", *options, "--json"))
    expected = {
        "info": lambda: content["parameters"] == 3_774_024 and content["preprocessing"]["size"] == [224, 224],
        "show": lambda: content["parameters"] == 3_774_024 == sum(block["parameters"] for block in content["blocks"]),
        "profile": lambda: content["total"]["macs"] == sum(row["macs"] for row in content["rows"]),
        "receptive-field": lambda: {"name": "stem", "size": [3, 3]}.items() <= content["layers"][2].items(),
        "lint-model": lambda: {finding["guideline"] for finding in content} <= {"G1", "G2", "G3", "G4"},
        "latency": lambda: content[0]["engine"] == "litert" and content[0]["p50"] > 0,
    }[command]
    assert expected(), content


def test_every_command_that_prints_a_table_has_json():
    from typer.main import get_command

    from keraslight.cli.app import app

    commands = get_command(app).commands
    without = {name for name, command in commands.items() if not any("--json" in p.opts for p in command.params)}
    assert without == {"export", "install-arm64", "onnx", "plot"}  # which print what they wrote, and no table


def test_every_command_is_in_a_panel():
    from typer.main import get_command

    from keraslight.cli.app import PANELS, app

    panels = {name: command.rich_help_panel for name, command in get_command(app).commands.items()}
    assert set(panels.values()) == set(PANELS)
    assert (panels["list"], panels["quantize"], panels["serve"]) == ("Models", "Make smaller", "Serve")


@pytest.mark.parametrize("command", ["train", "prune", "quantize", "latency", "serve"])
def test_the_help_shows_defaults(run, command):
    text = run(command, "--help")
    assert "default" in text
