"""Files that aren't there, aren't .tflite files or are cut off: the same errors from everything that reads them."""

import keras
import numpy as np
import pytest

from keraslight.analysis import file_latency
from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import litert_latency, litert_parity, litert_report, litert_runner, read_metadata, to_litert

DOORS = {
    "litert_runner": litert_runner,
    "litert_report": litert_report,
    "litert_latency": litert_latency,
    "read_metadata": read_metadata,
    "file_latency": lambda file: file_latency({"net": file}, repeats=1),
    "litert_parity": lambda file: litert_parity(keras.Sequential(), file, np.zeros((1, 4, 4, 1), np.float32)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    content = to_litert(model, folder / "whole.tflite", task="softmax").read_bytes()
    (folder / "half.tflite").write_bytes(content[: len(content) // 2])
    (folder / "start.tflite").write_bytes(content[:12])
    (folder / "text.tflite").write_text("not a model")
    (folder / "empty.tflite").touch()
    (folder / "folder.tflite").mkdir()
    return folder


@pytest.mark.parametrize("door", DOORS)
def test_every_reader_says_what_is_wrong_with_a_file(folder, door):
    for name in ("none", "folder"):
        with pytest.raises(
            InvalidArgumentError, match=rf"must be a .tflite file. Received: .*{name}.tflite', which is"
        ):
            DOORS[door](folder / f"{name}.tflite")
    for name in ("text", "empty"):
        with pytest.raises(ExportError, match=rf"must have the identifier TFL3. Received: .*{name}.tflite"):
            DOORS[door](folder / f"{name}.tflite")
    for name in ("half", "start"):
        with pytest.raises(ExportError, match=rf"(be complete|able to run the file). Received: .*{name}.tflite"):
            DOORS[door](folder / f"{name}.tflite")


@pytest.mark.parametrize("threads", [0, -1])
def test_a_runner_needs_a_thread(folder, threads):
    with pytest.raises(InvalidArgumentError, match=f"`num_threads` must be at least 1. Received: {threads}"):
        litert_runner(folder / "whole.tflite", num_threads=threads)
