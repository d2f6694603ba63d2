"""Training in several processes and on several devices, on Keras' JAX backend: the same weights as with one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer

import keraslight
from keraslight import training
from keraslight.cli import app, train as train_command
from keraslight.errors import InvalidArgumentError, MissingDependencyError
from keraslight.export import litert_runner, to_litert
from keraslight.training._processes import Processes, _place

ROOT = Path(keraslight.__file__).parent.parent
WORKER = Path(__file__).with_name("distributed_worker.py")
PAGE = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "serving")]),
    "JAX_PLATFORMS": "cpu",
}
AUGMENTATION = {"shift": 0.1, "rotate_degrees": 10}
PLAIN = {"recipe": {"augmentation": AUGMENTATION, "ema": 0.9}}  # 20 steps
FIELDS = {
    "soft": {
        "recipe": {
            "augmentation": {**AUGMENTATION, "rand_layers": 1},
            "epochs": 3,
            "ema": 0.9,
            "clip_norm": 0.5,
            "mixup": 0.4,
            "cutmix": 0.5,
            "layer_decay": 0.7,
            "accumulate": 2,
            "class_weights": "balanced",
        }
    },
    "frozen": {"recipe": {"epochs": 4, "freeze": "*", "freeze_epochs": 2, "freeze_batch_norm": True}},
    "kept": {"recipe": {"epochs": 1, "freeze": "*", "freeze_batch_norm": True}},
    "stages": {
        "model": {"size": None, "dropout": 0.2},
        "recipe": {"progressive": {"stages": 2, "size": [12, 16], "magnitude": [5, 10], "dropout": [0.0, 0.3]}},
    },
    "auxiliary": {"model": {"auxiliary": True}, "recipe": {"auxiliary_weight": 0.3}},
    "distilled": {"teacher": True, "images": 120},  # 24 are held out
}


def start(folder, runs, processes=1, devices=1, dies=None, **more):
    """Starts the processes of a training; `dies` is what happens to the last of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for process in range(processes):
        # Folders of their own: the other processes must not need that of the first.
        named = {name: {**run, "to": str(folder / f"{name}-{process}")} for name, run in runs.items()}
        job = {"devices": devices, "out": str(folder / str(process)), "runs": named, **more}
        if processes > 1:
            job |= {"address": address, "processes": processes, "process": process}
        if dies and process == dies.get("process", processes - 1):
            job["dies"] = dies
        # Most of the time would be that of XLA's optimization.
        flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        environment = {**ENVIRONMENT, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
        with (folder / f"{process}.log").open("w") as log:
            command = [sys.executable, str(WORKER), json.dumps(job)]
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    return started


def finish_one_by_one(folder, started, first):
    """As `finish`, where the others have the time that the page states to end after the first to do so."""
    try:
        started[first].wait(600)
        started[1 - first].wait(60 + 15)
    finally:
        for process in started:
            process.kill()
    return finish(folder, started)


def finish(folder, started):
    """Waits for the processes; their exit codes and what they said."""
    try:
        codes = [process.wait(600) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return codes, [(folder / f"{number}.log").read_text() for number in range(len(started))]


def run(folder, runs, *args, **kwargs):
    folder.mkdir(exist_ok=True)
    codes, said = finish(folder, start(folder, runs, *args, **kwargs))
    assert not any(codes), said


def weights(folder, name, process=0):
    with np.load(folder / f"{process}.{name}.npz") as file:
        return [file[key] for key in file.files]


def history(folder, name, process=0):
    return json.loads((folder / f"{process}.json").read_text())[name]


def difference(some, others):
    return max(float(abs(a - b).max()) for a, b in zip(some, others, strict=True))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes, which train; then the second trains alone."""
    folder = tmp_path_factory.mktemp("two")
    wrong = {"recipe": {"batch_size": 9}}
    run(folder, {"plain": PLAIN, "odd": wrong}, processes=2, alone=True, timeout=300)
    return folder


def test_two_processes_have_the_weights_of_one_with_the_same_batches(two):
    assert difference(weights(two, "plain", 0), weights(two, "plain", 1)) == 0
    assert difference(weights(two, "plain", 0), weights(two, "alone", 1)) < 1e-4


def test_the_metrics_of_two_processes_are_over_all_images(two):
    """21 images are held out: the last batch is odd."""
    assert history(two, "plain", 0) == history(two, "plain", 1)
    for ours, theirs in zip(history(two, "plain", 0), history(two, "alone", 1), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_the_first_process_alone_writes_and_tensorflow_reads_it(two, tmp_path):
    assert not (two / "plain-1").exists()
    files = sorted(path.name for path in (two / "plain-0").iterdir())
    assert files == ["best.keras", "curves.png", "history.csv", "last.npz", "model.json"]
    model, info = training.load_run(two / "plain-0")
    assert keras.backend.backend() == "tensorflow"
    assert difference(model.get_weights(), weights(two, "plain")) == 0
    assert "jax" in info["versions"]
    file = to_litert(model, tmp_path / "net.tflite", labels=info["labels"])
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1)).astype("float32")
    answers = litert_runner(file)(images)
    np.testing.assert_allclose(answers, model.predict(images, verbose=0), atol=1e-5)


def test_a_batch_that_cannot_be_divided_is_refused(two):
    text = "`batch_size` must be divisible by the number of devices of all processes, 2. Received: 9."
    assert history(two, "odd", 0) == history(two, "odd", 1) == f"InvalidArgumentError: {text}"


@pytest.mark.slow
def test_all_fields_of_a_recipe_give_the_weights_of_one_process(tmp_path):
    run(tmp_path / "one", FIELDS)
    run(tmp_path / "two", FIELDS, processes=2)
    for name in FIELDS:
        assert difference(weights(tmp_path / "two", name, 0), weights(tmp_path / "two", name, 1)) == 0
        assert difference(weights(tmp_path / "two", name), weights(tmp_path / "one", name)) < 1e-4, name
    # Kernel, two vectors and two statistics of the batch norm, then kernel and bias of a block, and those of the head.
    before, after = weights(tmp_path / "two", "kept.initial"), weights(tmp_path / "two", "kept")
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True] * 7 + [False] * 2
    before, after = weights(tmp_path / "two", "frozen.initial"), weights(tmp_path / "two", "frozen")
    assert not any((a == b).all() for a, b in zip(before, after, strict=True))
    model, _ = training.load_run(tmp_path / "two" / "frozen-0")
    assert model.get_layer("stem_bn").trainable


@pytest.mark.slow
def test_two_devices_of_one_process_have_the_weights_of_one(tmp_path):
    run(tmp_path / "one", {"plain": PLAIN})
    run(tmp_path / "two", {"plain": PLAIN}, devices=2)
    assert difference(weights(tmp_path / "two", "plain"), weights(tmp_path / "one", "plain")) < 1e-4


LONG = {"recipe": {"augmentation": AUGMENTATION, "ema": 0.9, "epochs": 4}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two processes that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, {"long": LONG}, processes=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "processes"), [(1, 2), (0, 1)])
def test_a_killed_process_ends_the_other_and_the_run_resumes(killed, processes, whole, tmp_path):
    """With as many processes to the same weights, and with another number to nearly the same."""
    dies = {"how": "SIGKILL", "step": 25, "process": killed}
    codes, said = finish_one_by_one(tmp_path, start(tmp_path, {"long": LONG}, processes=2, dies=dies), killed)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] not in (0, -signal.SIGKILL)
    assert "TrainingError: All processes must run" in said[1 - killed] or "fatal errors" in said[1 - killed]
    saved = (tmp_path / "long-0" / "history.csv").read_text().splitlines()
    assert len(saved) == 1 + 2  # epochs of ten steps
    run(tmp_path, {"long": LONG}, processes=processes)
    assert (tmp_path / "long-0" / "history.csv").read_text().splitlines()[:3] == saved
    assert difference(weights(tmp_path, "long"), weights(whole, "long")) <= (0 if processes == 2 else 1e-4)
    for ours, theirs in zip(history(tmp_path, "long"), history(whole, "long"), strict=True):
        assert ours == (theirs if processes == 2 else pytest.approx(theirs, abs=1e-4))


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other(tmp_path):
    started = start(tmp_path, {"long": LONG}, processes=2, dies={"how": "raise", "step": 5, "process": 0})
    codes, said = finish_one_by_one(tmp_path, started, 0)
    assert all(codes)
    assert "ValueError: the disk is full" in said[0]
    assert "TrainingError: All processes must run" in said[1] or "fatal errors" in said[1]


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_other_within_the_timeout(tmp_path):
    started = start(tmp_path, {"long": LONG}, processes=2, dies={"how": "SIGSTOP", "step": 5}, timeout=10)
    assert started[0].wait(300) != 0
    text = (tmp_path / "0.log").read_text()
    assert "TrainingError: All processes must run" in text or "fatal errors" in text
    finish(tmp_path, started[:1])
    os.kill(started[1].pid, signal.SIGKILL)
    started[1].wait()


@pytest.mark.slow
def test_processes_with_other_data_or_recipes_are_refused(tmp_path):
    for number, wrong in enumerate([{"images": 96}, {"recipe": {"weight_decay": 0.1}}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        codes, _ = finish(folder, start(folder, {"plain": PLAIN}, processes=2, others=wrong))
        assert codes == [0, 0]  # the worker writes the error
        what = ["data", "recipe"][number]
        assert f"Received: another {what}" in history(folder, "plain", 0)
        assert "in process 1 than in process 0" in history(folder, "plain", 1)


@pytest.mark.slow
def test_processes_with_other_seeds_are_refused(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = "import sys, keraslight.cli; sys.exit(keraslight.cli.main())"
    words = ["train", "lenet5_modern", "--data", "digits", "--distribute", "--coordinator", address, "--processes", "2"]
    started = []
    for number in "01":
        own = ["--process", number, "--seed", number, "--to", str(tmp_path / number)]
        command = [sys.executable, "-c", code, *words, *own]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT))
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1], said
    assert all("All processes must have the same `seed`. Received: [0, 1]." in text for text in said), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_example_and_the_command_of_the_page_run(tmp_path):
    [example] = re.findall(r"<!-- tested -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    environment = {**ENVIRONMENT, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # as a user has it
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [command] = [line for line in PAGE.splitlines() if line.startswith("XLA_FLAGS=")]
    code = "import sys, keraslight.cli; sys.exit(keraslight.cli.main())"
    words = command.split()[2:]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^[IWE]\d{4} |absl::InitializeLog", done.stderr, re.MULTILINE), done.stderr
    assert "Training on 2 devices of 1 process." in done.stdout
    assert "Best epoch" in done.stdout


def test_every_command_of_the_page_is_valid():
    lines = [line for line in PAGE.splitlines() if re.match(r"(srun .*|\w+=\S+ )?keraslight train ", line)]
    assert len(lines) == 5
    command = typer.main.get_command(app.app)
    for line in lines:
        words = line.split("keraslight train ")[1].split()
        found = command.commands["train"].make_context("train", words)
        assert found.params["distribute"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("10.0.0.1:9876", 2, None), "`coordinator`, `processes` and `process` belong together"),
        ((None, None, 1), "`coordinator`, `processes` and `process` belong together"),
        (("10.0.0.1", 2, 0), "address and a port of process 0, such as 10.0.0.1:9876. Received: '10.0.0.1'"),
        ((":80", 2, 0), "address and a port"),
        (("host:0", 2, 0), "address and a port"),
        (("host:99999", 2, 0), "address and a port"),
        (("host:80", 2, 2), "`process` must be at least 0 and less than `processes`. Received: .*process=2"),
        (("host:80", 2, -1), "`process` must be at least 0"),
        (("host:80", 0, 0), "`process` must be at least 0"),
    ],
)
def test_a_place_among_the_processes_is_checked(given, text):
    with pytest.raises(InvalidArgumentError, match=text):
        _place(*given)


def test_the_environment_gives_the_place(monkeypatch):
    assert _place(None, None, None) == (None, None, None)
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "10.0.0.1:9876,10.0.0.2:9876")
    with pytest.raises(InvalidArgumentError, match="KERAS_DISTRIBUTION_NUM_PROCESSES"):
        _place(None, None, None)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "1")
    assert _place(None, None, None) == ("10.0.0.1:9876", 2, 1)
    assert _place("host:1", 3, 2) == ("host:1", 3, 2)
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "one")
    with pytest.raises(InvalidArgumentError, match="must be numbers. Received: .*process=one"):
        _place(None, None, None)


def test_another_backend_and_a_missing_jax_are_named(monkeypatch):
    with pytest.raises(InvalidArgumentError, match="KERAS_BACKEND=jax before .* Received: KERAS_BACKEND=tensorflow"):
        training.distribute()
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingDependencyError, match=r'needs jax, .* pip install "keraslight\[distribute\]"'):
        training.distribute()
    with pytest.raises(MissingDependencyError, match=r"train --distribute needs jax, .*keraslight\[distribute\]"):
        train_command._join(True, None, None, None, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(monkeypatch, seed):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InvalidArgumentError, match=re.escape(f"`seed` must be 0 to 2**32 - 1. Received: seed={seed}.")):
        training.distribute(seed=seed)


def test_keras_on_jax_without_jax_names_the_extra():
    code = "import sys; sys.modules['jax'] = None; import keraslight.training"
    environment = {**ENVIRONMENT, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert 'keraslight.training, needs jax, which is not installed: pip install "keraslight[distribute]"' in done.stderr


def test_options_of_the_command_need_distribute():
    assert train_command._join(False, None, None, None, 0)
    with pytest.raises(InvalidArgumentError, match="need `--distribute`. Received: --coordinator a:1 --process 0"):
        train_command._join(False, "a:1", None, 0, 0)


@pytest.mark.parametrize("images", [12, 13, 14, 15, 1])
def test_validation_batches_are_filled_up_and_means_stay(images):
    """Two processes of two devices each, in an order that isn't that of the processes."""
    found = [Processes(2, index, places, 4) for index, places in ((0, (0, 2)), (1, (1, 3)))]
    values = np.arange(images, dtype=np.float32)
    batches = tf.data.Dataset.from_tensor_slices((values[:, None], values)).batch(8)
    parts = [list(processes.padded(batches, images, 8).as_numpy_iterator()) for processes in found]
    total = rows = 0.0
    for own in zip(*parts, strict=True):
        joined = [np.concatenate(part) for part in zip(*own, strict=True)]
        assert len(joined[0]) % 4 == 0
        assert len({len(part) for part in joined}) == 1
        total += float((joined[1] * (joined[2] if len(joined) == 3 else 1)).sum())
        rows += len(joined[1])
        assert (joined[0][:, 0] == joined[1]).all()
    assert total / rows == pytest.approx(values.mean(), rel=1e-6)


def test_processes_share_each_batch():
    batches = tf.data.Dataset.range(16).batch(8)
    found = Processes(2, 0, (0, 1), 4), Processes(2, 1, (2, 3), 4)
    ours, theirs = ([own for (own,) in processes.own(batches).as_numpy_iterator()] for processes in found)
    assert np.concatenate([ours[0], theirs[0], ours[1], theirs[1]]).tolist() == list(range(16))


def test_the_time_limits_of_the_page_are_those_of_the_code():
    assert "wait five minutes" in PAGE
    assert training._processes.START_SECONDS == 300
    assert "end after 60 seconds" in PAGE
    assert training.distribute.__kwdefaults__["timeout"] == 60
