"""Warmup requests, written by TensorFlow and replayed without it."""

import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.server.loading.loader import Loader
from keraslight_serving.server.running.engines.litert import LiteRTEngine
from keraslight_serving.server.running.engines.saved_model import SavedModelEngine
from keraslight_serving.server.settings import Settings
from keraslight_serving.server.telemetry.metrics import Metrics
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2

FILE = "assets.extra/tf_serving_warmup_requests"


def predict_log(images=None, signature="", alias="images", with_spec=True):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    if with_spec:
        request.model_spec.name = "another name"
        request.model_spec.signature_name = signature
    request.inputs[alias].CopyFrom(
        tf.make_tensor_proto(np.zeros((2, 8, 8, 1), np.float32) if images is None else images)
    )
    return log


def example_log(kind, png):
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    request.input.example_list.examples.append(example)
    if kind == "multi_inference":
        for name in ("regress", "classify"):
            spec = request.tasks.add(method_name=f"tensorflow/serving/{name}").model_spec
            spec.name, spec.signature_name = "tiny", name
    else:
        request.model_spec.signature_name = kind
    return log


def write(folder, *records):
    (folder / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


@pytest.fixture
def folder(version_folder, tmp_path):
    shutil.copytree(version_folder, tmp_path / "tiny" / "1")
    return tmp_path / "tiny" / "1"


@pytest.fixture
def load(monkeypatch):
    """`load(folder)` is (servable, the signatures that ran)."""
    ran = []
    for engine in (LiteRTEngine, SavedModelEngine):

        def run(self, signature, *args, run=engine.run):
            ran.append(signature)
            return run(self, signature, *args)

        monkeypatch.setattr(engine, "run", run)

    def loaded(folder, **arguments):
        ran.clear()
        servable = Loader(Settings("tiny", folder.parent, **arguments))("tiny", folder, False)
        return servable, list(ran)

    return loaded


def test_requests_are_replayed_through_the_engine(folder, load):
    write(folder, predict_log(), predict_log(with_spec=False))
    servable, ran = load(folder)
    assert ran == ["serving_default"] * 2
    assert not servable.saved_model_loaded
    assert load(folder, num_request_iterations_for_warmup=3)[1] == ["serving_default"] * 6
    assert load(folder, enable_model_warmup=False)[1] == []


def test_all_kinds(folder, png, load):
    kinds = ("classify", "regress", "multi_inference")
    write(folder, predict_log([png], "encoded", "image_bytes"), *(example_log(kind, png) for kind in kinds))
    assert load(folder, load_saved_model=True)[1] == ["encoded", "classify", "regress", "regress", "classify"]


def test_what_needs_tensorflow_is_passed_over_until_it_is_loaded(folder, png, caplog, load):
    kinds = ("classify", "regress", "multi_inference")
    logs = [predict_log(), predict_log([png], "encoded", "image_bytes"), *(example_log(kind, png) for kind in kinds)]
    write(folder, *logs)
    with caplog.at_level(logging.INFO):
        servable, ran = load(folder)
    assert ran == ["serving_default"]
    assert not servable.saved_model_loaded
    assert "1 requests replayed in" in caplog.text
    assert "4 skipped that need TensorFlow" in caplog.text


def test_a_batcher_is_warmed_up_too(folder):
    write(folder, predict_log())
    metrics = Metrics()
    loader = Loader(Settings("tiny", folder.parent, enable_batching=True), metrics)
    loader("tiny", folder, False)
    loader.close()
    assert ':keraslight:serving:queue_latency_count{model_name="tiny",engine="litert"} 1' in metrics.render().decode()
    assert f':tensorflow:serving:model_warmup_records_read{{model_path="{folder}",status="OK"}} 1' in (
        metrics.render().decode()
    )


def session_log():
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.request.model_spec.name = "tiny"
    return log


@pytest.mark.parametrize(
    ("records", "code", "text"),
    [
        ([predict_log(np.zeros((1, 9, 8, 1), np.float32))], "INVALID_ARGUMENT", 'Input "images" must have shape'),
        ([predict_log(signature="none")], "FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
        ([predict_log(), b"\xff\xff"], "INVALID_ARGUMENT", r"Failed to parse warmup record: b'\\xff\\xff' from "),
        ([session_log()], "UNIMPLEMENTED", "Unsupported log_type for warmup: session_run_log"),
        ([b""], "UNIMPLEMENTED", "Unsupported log_type for warmup: LOG_TYPE_NOT_SET"),
    ],
    ids=["shape", "signature", "no message", "kind", "empty"],
)
def test_a_record_that_fails_fails_the_version(folder, records, code, text, load):
    write(folder, *records)
    with pytest.raises(StatusError, match=text) as caught:
        load(folder)
    assert caught.value.code.name == code


def test_at_most_a_thousand(folder, load):
    log = predict_log(np.zeros((1, 8, 8, 1), np.float32))
    write(folder, *[log] * 1000)
    assert len(load(folder)[1]) == 1000
    write(folder, *[log] * 1001)
    with pytest.raises(StatusError, match=r"Number of warmup records exceeds the maximum \(1000\) at "):
        load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"no record",
        lambda content: content[:-1],
        lambda content: content[:-4],
        lambda content: content[: len(content) // 2 + 5],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
        lambda content: b"\xff" * 8 + content[8:],
    ],
    ids=["no record", "a byte less", "no checksum", "half", "another length", "other data", "a huge length"],
)
def test_a_damaged_file_fails_the_version(folder, load, damage):
    write(folder, predict_log(), predict_log())
    (folder / FILE).write_bytes(damage((folder / FILE).read_bytes()))
    with pytest.raises(StatusError, match=r"corrupted record at \d+. Please verify your warmup data is in TFRecord"):
        load(folder)


def test_an_empty_file_holds_no_requests(folder, load):
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / FILE).write_bytes(b"")
    assert load(folder)[1] == []


def test_a_server_does_not_announce_what_fails(folder, connect):
    write(folder, predict_log(signature="none"))
    with pytest.raises(StartError, match='version 1: Serving signature key "none" not found'):
        ModelServer("tiny", folder.parent).start()
    shutil.copytree(folder, folder.parent / "2")
    write(folder, predict_log())
    with ModelServer("tiny", folder.parent) as server:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "tiny"
        found = connect(server).model.GetModelStatus(request, timeout=60).model_version_status
    assert [(status.version, status.state, status.status.error_code) for status in found] == [(2, 50, 9), (1, 30, 0)]


NO_TENSORFLOW = """
import sys
from keraslight_serving.server import ModelServer

with ModelServer("tiny", sys.argv[1]):
    print("tensorflow" in sys.modules)
"""


def test_replaying_needs_no_tensorflow(folder):
    write(folder, predict_log(), predict_log([b"x"], "encoded", "image_bytes"))
    command = [sys.executable, "-c", NO_TENSORFLOW, str(folder.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
