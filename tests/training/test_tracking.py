"""TensorBoard, MLflow and Weights & Biases, as they are: what they wrote is read back with their own readers."""

import re
import socket
import struct
import sys

import keras
import numpy as np
import pytest

from keraslight.errors import InvalidArgumentError, MissingDependencyError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.training import Augmentation, ImageData, Recipe, train
from tests.training.test_trainer import Kill

SPEC = Preprocessing((8, 8), mean=(0.5,), std=(0.5,))
RECIPE = Recipe(
    epochs=3, batch_size=16, learning_rate=0.02, augmentation=Augmentation(shift=0.05), class_weights="balanced"
)
# Lines of TensorFlow's C++ about the machine's processor.
MACHINE = re.compile(r"^(?:[IWE]\d{4} .*|WARNING: All log messages before absl.*)\n", re.MULTILINE)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    return ImageData.from_arrays(pixels, np.arange(40) % 2, ["a", "b"], SPEC)


def net():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(ImageNormalization(SPEC)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x), name="net")


@pytest.fixture(scope="module")
def untracked(images, tmp_path_factory):
    return train(net(), images, RECIPE, run_dir=tmp_path_factory.mktemp("untracked"), progress=False)


@pytest.fixture
def tracked(images, untracked, tmp_path, monkeypatch, capfd):
    """A function that trains with a tracker, is killed after the second epoch and resumes; returns the run folder."""

    def unreachable(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"connects to {address}")
        return connect(self, address)

    def run(name):
        connect_to = unreachable
        monkeypatch.setattr(socket.socket, "connect", connect_to)
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "run"
        capfd.readouterr()
        with pytest.raises(KeyboardInterrupt):
            train(net(), images, RECIPE, run_dir=folder, track=name, callbacks=[Kill(after_epoch=2)], progress=False)
        result = train(net(), images, RECIPE, run_dir=folder, track=name, progress=False)
        printed = capfd.readouterr()
        assert (printed.out, MACHINE.sub("", printed.err)) == ("", "")
        # Otherwise as without.
        assert [row["loss"] for row in result.history] == [row["loss"] for row in untracked.history]
        own = {file.name for file in untracked.run_dir.iterdir()}
        assert {file.name for file in folder.iterdir()} - own == {
            "tensorboard": {"tensorboard"}, "mlflow": {"tracking.json"}, "wandb": {"tracking.json", "wandb"},
        }[name]  # fmt: skip
        with np.load(folder / "last.npz") as state, np.load(untracked.run_dir / "last.npz") as expected:
            for array in set(expected.files) - {"meta"}:
                assert state[array].tobytes() == expected[array].tobytes()
        return folder

    connect = socket.socket.connect
    return run


def column(result, name):
    return [row[name] for row in result.history]


def test_tensorboard(tracked, untracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder = tracked("tensorboard") / "tensorboard"
    for part, prefix in (("train", ""), ("validation", "val_")):
        events = EventAccumulator(str(folder / part)).Reload()
        for metric in ("loss", "accuracy"):
            found = events.Tensors(f"epoch_{metric}")
            assert [event.step for event in found] == [0, 1, 2]
            values = [float(np.frombuffer(event.tensor_proto.tensor_content, np.float32)[0]) for event in found]
            assert values == pytest.approx(column(untracked, f"{prefix}{metric}"), rel=1e-6)
        if part == "train":
            content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
            assert (started["epochs"].number_value, started["augmentation.shift"].number_value) == (3, 0.05)
            assert started["class_weights"].string_value == "balanced"


def test_mlflow(tracked, untracked, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracked("mlflow")
    from mlflow import MlflowClient, active_run

    assert active_run() is None
    client = MlflowClient()
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert {name: run.data.params[name] for name in ("epochs", "augmentation.shift", "class_weights", "ema")} == {
        "epochs": "3", "augmentation.shift": "0.05", "class_weights": "balanced", "ema": "null",
    }  # fmt: skip
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        found = sorted(client.get_metric_history(run.info.run_id, metric), key=lambda each: each.step)
        assert [each.step for each in found] == [0, 1, 2]
        assert [each.value for each in found] == pytest.approx(column(untracked, metric), rel=1e-6)


def test_mlflow_without_a_place_for_runs(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://else")
    with pytest.raises(InvalidArgumentError, match=r"`MLFLOW_TRACKING_URI` must be where .*Received: nowhere://else"):
        train(net(), images, RECIPE, run_dir=tmp_path, track="mlflow", progress=False)


def logged(content):
    """The records in a file of W&B, which has the format of LevelDB's logs."""
    place, parts = 7, b""  # after the file's header
    while place + 7 <= len(content):
        size, kind = struct.unpack_from("<HB", content, place + 4)
        if kind:  # else the rest of a block
            parts = (b"" if kind in (1, 2) else parts) + content[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):
                yield parts
        if not kind or 32768 - place % 32768 < 7:
            place += -place % 32768


def test_wandb(tracked, untracked, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    folder = tracked("wandb")
    import wandb
    from wandb.proto import wandb_internal_pb2

    assert wandb.run is None
    rows, parameters, numbers = {}, {}, set()
    files = list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for record in (wandb_internal_pb2.Record.FromString(data) for file in files for data in logged(file.read_bytes())):
        if record.HasField("run"):
            numbers.add((record.run.run_id, record.run.display_name))
            parameters |= {item.key: item.value_json for item in record.run.config.update}
        elif record.HasField("history"):
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            rows[int(row["epoch/epoch"])] = row
    assert len({number for number, _ in numbers}) == 1
    assert "run" in {name for _, name in numbers}
    assert (parameters["epochs"], parameters["augmentation.shift"]) == ("3", "0.05")
    assert sorted(rows) == [0, 1, 2]
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        found = [float(rows[epoch][f"epoch/{metric}"]) for epoch in range(3)]
        assert found == pytest.approx(column(untracked, metric), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "tensorboard.plugins.hparams.api"),
        ("mlflow", "mlflow.keras"),
        ("wandb", "wandb.integration.keras"),
    ],
)
def test_a_missing_library_is_named_before_anything_is_written(images, tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'keraslight\[{name}\]'"):
        train(net(), images, RECIPE, run_dir=tmp_path / "run", track=name, progress=False)
    assert not (tmp_path / "run").exists()


def test_another_tracker_is_rejected(images, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`track` must be one of .*'wandb'.*, or None"):
        train(net(), images, RECIPE, run_dir=tmp_path, track="aim", progress=False)


def test_a_fresh_run_forgets_the_tracked_one(images, tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "old").write_text("x")
    (tmp_path / "tracking.json").write_text('{"mlflow": "1"}')
    train(net(), images, Recipe(epochs=1), run_dir=tmp_path, resume=False, progress=False)
    assert not (tmp_path / "tensorboard").exists()
    assert not (tmp_path / "tracking.json").exists()
