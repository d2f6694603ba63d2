"""What is left out of stderr while TensorFlow and LiteRT start, and that nothing else is."""

import os
import re
import subprocess
import sys

import pytest
from keraslight_serving import startup

QUANTIZER = "fully_quantize: 0, inference_type: 6, input_inference_type: FLOAT32, output_inference_type: FLOAT32"
NOISE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795984752.827974   27122 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.",  # noqa: E501
    "W0000 00:00:1795984772.132052   27122 tf_tfl_flatbuffer_helpers.cc:364] Ignored output_format.",
    "2026-11-29 20:00:01.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate compiler flags.",  # noqa: E501
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    QUANTIZER,
]
CUDA = "E0000 00:00:1.2 7 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error"
KEPT = [
    "E0000 00:00:1.2 7 gpu_device.cc:9] out of memory",
    "F0000 00:00:1.2 7 cpu_feature_guard.cc:9] The TensorFlow library was compiled to use AVX instructions",
    "2026-11-29 20:00:01.123456: E tensorflow/core/x.cc:1] broken",
    "WARNING: All log messages of another kind",
    "Traceback (most recent call last):",
    "ERROR: Created nothing",
    "Ignored: I0000",
    "Käfer \udcff",
    "",
]


def run(code, **environment):
    """Stderr of a process that runs `code`, as lines."""
    environment = {**{k: v for k, v in os.environ.items() if k != startup.LEVEL}, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)
    return os.fsdecode(done.stderr).split("\n")[:-1], done.returncode


def writing(lines, then=""):
    text = os.fsencode("".join(f"{line}\n" for line in lines))
    return f"""
import os, sys
from keraslight_serving.startup import quiet
with quiet("a library"):
    os.write(2, {text!r})
    {then}
print("after", file=sys.stderr, flush=True)
os.write(2, b"INFO: of a running library\\n")
"""


@pytest.mark.parametrize("has_gpu", [False, True])
def test_an_error_about_cuda_is_left_out_only_without_a_gpu(monkeypatch, tmp_path, has_gpu):
    monkeypatch.setattr(startup, "_GPU_FILES", (str(tmp_path / ("." if has_gpu else "none")),))
    matched = re.match(startup.harmless(), CUDA)
    assert bool(matched) is not has_gpu


def test_start_up_lines_are_left_out_and_all_others_pass_in_order():
    mixed = [line for pair in zip(NOISE, KEPT, strict=False) for line in pair] + KEPT[len(NOISE) :]
    assert run(writing(mixed))[0] == [*KEPT, "after", "INFO: of a running library"]


def test_what_a_crash_writes_last_is_kept():
    last = KEPT[1]
    lines, code = run(writing([NOISE[0], last], "os.abort()"))
    assert lines[0] == last
    assert code < 0


def test_what_python_writes_and_raises_meanwhile_is_kept():
    lines, code = run(writing([NOISE[1]], "print('said', file=sys.stderr); raise ValueError('wrong')"))
    assert lines[0] == "said"
    assert lines[-1] == "ValueError: wrong"
    assert code == 1


def test_a_line_without_an_end_is_kept():
    assert run(writing([], "os.write(2, b'progress 50%')"))[0] == ["progress 50%after", "INFO: of a running library"]


def test_a_process_that_begins_meanwhile_keeps_its_stderr():
    child = "import subprocess; p = subprocess.Popen(['sh', '-c', 'sleep 2; echo late >&2'])"
    code = writing([NOISE[0]], child) + "\np.wait()\nimport time; time.sleep(0.5)"
    assert run(code)[0] == ["after", "INFO: of a running library", "late"]


@pytest.mark.parametrize("level", ["0", "1"])
def test_whoever_asks_for_messages_gets_them(level):
    lines, _ = run(writing(NOISE), **{startup.LEVEL: level})
    assert lines[: len(NOISE)] == NOISE


@pytest.mark.parametrize(("level", "shown"), [({}, False), ({startup.LEVEL: "1"}, True)])
def test_the_level_that_jax_sets_is_not_asked_for(level, shown, tmp_path):
    # As JAX does. TensorFlow imports it where it is installed.
    (tmp_path / "jax.py").write_text(f"import os; os.environ.setdefault({startup.LEVEL!r}, '1')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code = "import keraslight_serving.startup, jax\n" + writing(NOISE)
    lines, _ = run(code, PYTHONPATH=path, **level)
    assert lines == [*(NOISE if shown else []), "after", "INFO: of a running library"]


def test_a_closed_stderr_is_no_obstacle():
    code = "import os; os.close(2)\nfrom keraslight_serving.startup import quiet\nwith quiet('x'): print('ran')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "ran\n"


def test_only_the_first_start_is_filtered():
    code = writing([NOISE[0]]) + "\nwith quiet('a library'): os.write(2, b'INFO: again\\n')"
    assert run(code)[0][-1] == "INFO: again"


def test_what_is_no_library_is_filtered_each_time():
    code = writing([]) + f"\nfor _ in range(2):\n    with quiet(): os.write(2, b'{QUANTIZER}\\nother\\n')"
    assert run(code)[0][-2:] == ["other", "other"]


def test_a_program_that_embeds_python_is_not_started_again(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    monkeypatch.setattr(startup, "_started", set())
    with startup.quiet("a library"):
        os.write(2, b"INFO: shown\n")
    assert capfd.readouterr().err == "INFO: shown\n"
