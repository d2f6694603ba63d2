"""Requests written to files: what TensorFlow reads back, and what a full disk does to the requests: nothing."""

import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.telemetry import request_log as _request_log
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.telemetry.request_log import RequestLog
from keraslight_serving.wire import serving_pb2 as pb
from tensorflow_serving.apis import classification_pb2, model_management_pb2, predict_pb2, prediction_log_pb2

IMAGE = np.zeros((1, 8, 8, 1), np.float32)


def predict():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(IMAGE))
    return request


def config_text(base, prefix, rate=1.0, kind="file"):
    return f"""model_config_list {{ config {{
        name: "tiny" base_path: "{base}" model_platform: "tensorflow"
        logging_config {{
            log_collector_config {{ type: "{kind}" filename_prefix: "{prefix}" }}
            sampling_config {{ sampling_rate: {rate} }}
        }}
    }} }}"""


@pytest.fixture
def configure(publish, tmp_path):
    """Writes a model config file for `tiny` with a request log."""

    def write(prefix, **options):
        file = tmp_path / "models.config"
        file.write_text(config_text(publish(1), prefix, **options))
        return file

    return write


def records(folder):
    """All that the files hold, read by TensorFlow, which checks every CRC."""
    files = sorted(map(str, folder.glob("*.tfrecord")))
    return [prediction_log_pb2.PredictionLog.FromString(data.numpy()) for data in tf.data.TFRecordDataset(files)]


def logging_config(prefix, rate=1.0):
    config = pb.LoggingConfig()
    config.log_collector_config.type, config.log_collector_config.filename_prefix = "file", str(prefix)
    config.sampling_config.sampling_rate = rate
    return config


def empty_exchange():
    return pb.PredictRequest(), pb.PredictResponse()


def test_tensorflow_reads_the_log(configure, connect, tmp_path, png):
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(png)
    classification = classification_pb2.ClassificationRequest()
    classification.model_spec.name, classification.model_spec.signature_name = "tiny", "classify"
    classification.input.example_list.examples.append(example)
    with ModelServer(model_config_file=configure(tmp_path / "log")) as server:
        stubs = connect(server)
        first = stubs.prediction.Predict(predict(), timeout=60)
        second = stubs.prediction.Classify(classification, timeout=60)
        bad = predict()
        bad.inputs["images"].dtype = 99
        with pytest.raises(grpc.RpcError):
            stubs.prediction.Predict(bad, timeout=60)
    predicted, classified = records(tmp_path)
    assert predicted.predict_log.request == predict()
    assert predicted.predict_log.response == first
    assert classified.classify_log.request == classification
    assert classified.classify_log.response == second
    metadata = predicted.log_metadata
    assert metadata.model_spec == first.model_spec
    assert metadata.sampling_config.sampling_rate == 1
    assert metadata.saved_model_tags == ["serve"]
    assert metadata.timestamp_secs > 1_700_000_000
    assert b'request_log_count{model_name="tiny",status_code="OK"} 2' in server.metrics.render()


def test_a_share_is_sampled(tmp_path):
    metrics = Metrics()
    log = RequestLog(metrics, seed=1)
    spec = ModelSpec("tiny")
    for _ in range(1000):
        log.offer(logging_config(tmp_path / "some", 0.25), "Predict", spec, empty_exchange)
        log.offer(logging_config(tmp_path / "none", 0), "Predict", spec, empty_exchange)
    log.close()
    assert 200 < len(records(tmp_path)) < 300
    assert not list(tmp_path.glob("none*"))


def test_long_logs_go_on_in_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_request_log, "_MAX_FILE", 500)
    log = RequestLog(Metrics())
    for n in range(20):
        spec = ModelSpec(f"model-{n:03}")
        log.offer(logging_config(tmp_path / "log"), "Predict", spec, empty_exchange)
    log.close()
    assert [record.log_metadata.model_spec.name for record in records(tmp_path)] == [f"model-{n:03}" for n in range(20)]
    assert 2 < len(list(tmp_path.glob("*.tfrecord"))) < 10


def test_what_the_disk_is_too_slow_for_is_dropped(tmp_path, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()

    def slow(*_):
        writing.set()
        go_on.wait(30)
        return b"record"

    monkeypatch.setattr(_request_log, "_record", slow)
    monkeypatch.setattr(_request_log, "_MAX_HELD", 1000)
    metrics = Metrics()
    log = RequestLog(metrics)
    request, spec = pb.PredictRequest(output_filter=["x" * 390]), ModelSpec("tiny")

    def exchange():
        return request, pb.PredictResponse()

    for _ in range(10):
        log.offer(logging_config(tmp_path / "log"), "Predict", spec, exchange)
    assert writing.wait(10)
    assert b'status_code="RESOURCE_EXHAUSTED"} 8' in metrics.render()
    go_on.set()
    log.close()
    assert b'status_code="OK"} 2' in metrics.render()
    # and afterwards there is room again
    log.offer(logging_config(tmp_path / "log"), "Predict", spec, exchange)
    log.close()
    assert b'status_code="OK"} 3' in metrics.render()


FULL_DISK = """
import resource, signal, sys, time
import numpy as np
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer

# Every file that this process writes ends after so many bytes, in the middle of a record.
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with ModelServer(model_config_file=sys.argv[1]) as server, ClassifierClient(server.address, "tiny") as client:
    for _ in range(30):
        assert client.predict({"images": np.zeros((4, 8, 8, 1), np.float32)})["probabilities"].shape == (4, 3)
    server._request_log.close()
    print(server.metrics.render().decode())
"""


def test_a_full_disk_fails_no_request(configure, tmp_path):
    file = configure(tmp_path / "log")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, file], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = records(tmp_path)  # whole records, and no torn one at the end
    assert 0 < len(found) < 30
    assert f'request_log_count{{model_name="tiny",status_code="OK"}} {len(found)}' in done.stdout
    assert f'request_log_count{{model_name="tiny",status_code="UNAVAILABLE"}} {30 - len(found)}' in done.stdout
    assert 'request_count{model_name="tiny",status="OK"} 30' in done.stdout
    assert done.stderr.count("Can't log requests to") == 1


def test_a_folder_that_comes_later(configure, connect, tmp_path, caplog):
    folder = tmp_path / "logs"
    metrics = Metrics()
    log = RequestLog(metrics)

    def offer():
        spec = ModelSpec("tiny")
        log.offer(logging_config(folder / "log"), "Predict", spec, empty_exchange)

    offer(), offer()
    log.close()
    assert b'status_code="UNAVAILABLE"} 2' in metrics.render()
    assert caplog.text.count("Can't log requests to") == 1
    folder.mkdir()
    offer()
    log.close()
    assert len(records(folder)) == 1


def test_a_reload_switches_the_log_on_and_off(publish, connect, tmp_path):
    with ModelServer("tiny", publish(1)) as server:
        stubs = connect(server)
        stubs.prediction.Predict(predict(), timeout=60)
        text = config_text(publish(2), tmp_path / "log")
        for change in (text, text.replace("sampling_rate: 1.0", "sampling_rate: 0")):
            request = model_management_pb2.ReloadConfigRequest()
            text_format.Parse(change, request.config)
            stubs.model.HandleReloadConfigRequest(request, timeout=60)
            stubs.prediction.Predict(predict(), timeout=60)
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "kafka"}, "NOT_FOUND: Cannot find LogCollector::Factory for type: kafka"),
        ({"prefix": "log"}, "INVALID_ARGUMENT: Expected model tiny to have an absolute filename_prefix; got log"),
        ({"rate": 1.5}, "INVALID_ARGUMENT: Expected model tiny to have a sampling_rate from 0 to 1; got 1.5"),
    ],
)
def test_logs_that_can_not_be(configure, tmp_path, options, text):
    options = {"prefix": tmp_path / "log"} | options
    with pytest.raises(StartError, match=text):
        ModelServer(model_config_file=configure(**options)).start()
