"""The commands about models by name, and a model's way from training to classification."""

import inspect
import itertools
import json
import re
import subprocess
import sys

import pytest
from keraslight_serving.server import ModelServer
from PIL import Image
from sklearn.datasets import load_digits

from keraslight.cli import app
from keraslight.errors import InvalidArgumentError

COMMANDS = "list info show compare train export versions serve litert onnx prune quantize fuse classify load-test demo"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_help_lists_and_explains_the_commands(run, command):
    assert command in run("--help")
    assert "Usage" in run(command, "--help")


def test_the_commands_load_what_they_need_when_they_run():
    code = "import keraslight.cli.app, sys; print({'numpy', 'keras', 'tensorflow', 'grpc'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_no_command_imports_keras_before_what_keeps_its_start_up_lines_from_stderr():
    for command in itertools.chain(*app.PANELS.values(), app.PLOTS):
        imported = re.findall(
            r"^ +(?:import|from) (keras\b|tensorflow|keraslight[. ])", inspect.getsource(command), re.M
        )
        assert imported[:1] not in (["keras"], ["tensorflow"]), command


def test_list_shows_the_models_that_match_a_pattern(run):
    assert "mobilenet_v4_hybrid_medium" in run("list", "*hybrid*")


def test_info_takes_a_published_id(run):
    assert "3,774,024" in run("info", "timm/mobilenetv4_conv_small")


def test_show_lists_the_blocks_and_their_costs(run):
    text = run("show", "mobilenet_v4_conv_small")
    assert "stage2_block0" in text
    assert "14x14x96" in text
    assert "3,774,024" in text
    assert "186,005,568" in text


def test_compare_shows_ratios_to_the_first_model(run):
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


@pytest.fixture(scope="module")
def exported(run, digits_run, tmp_path_factory):
    """A servable's folder, and what `export` printed."""
    folder = tmp_path_factory.mktemp("exported") / "digits"
    return folder, run("export", digits_run[0], "--to", folder)


@pytest.fixture
def digit(tmp_path):
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_export_writes_a_servable(exported):
    folder, text = exported
    assert "--model_name=digits" in text
    assert (folder / "1/saved_model.pb").is_file()


def test_litert_of_a_run_folder_in_int8(run, digits_run, tmp_path):
    file = tmp_path / "digits.tflite"
    with pytest.raises(InvalidArgumentError, match="int8 needs images that set its ranges"):
        run("litert", digits_run[0], "--to", file, "--quantization", "int8")
    run("litert", digits_run[0], "--to", file, "--quantization", "int8", "--data", "digits", "--input-dtype", "uint8")
    assert 0 < file.stat().st_size < 5e6
    assert "10 classes, int8, made with keraslight. 10 labels" in run("litert", file, "--report", "--threads", 1)


def test_classify_asks_a_server(run, exported, digit):
    with ModelServer("digits", exported[0], port=0) as server:
        arguments = ("classify", digit, "--server", server.address, "--model", "digits")
        (line,) = run(*arguments, "--json", "--top", 3).splitlines()
        answer = json.loads(line)
        assert answer["image"] == str(digit)
        assert len(answer["classes"]) == 3
        assert answer["classes"][0]["label"] in "0123456789"
        assert "digit.png" in run(*arguments)
        assert "ModelNotFound" in run("classify", digit, "--server", server.address, "--model", "other", code=1)


def test_no_server_is_said(run, digit):
    assert "Unavailable" in run("classify", digit, "--server", "127.0.0.1:1", "--model", "digits", code=1)
