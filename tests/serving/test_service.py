"""One service behind both protocols: what a request costs there, and which version it is answered by."""

import base64
import contextlib
import json

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from keraslight_serving.server import ModelServer
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls.messages import Messages, read_spec, write_spec
from keraslight_serving.server.calls.observe import Observer
from keraslight_serving.server.calls.service import Service
from keraslight_serving.server.rest import Handler
from keraslight_serving.server.rest._handler import read_url
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.running.signatures import Signature
from keraslight_serving.server.telemetry.request_log import RequestLog
from keraslight_serving.server.testing import FakeEngine
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor
from tensorflow_serving.apis import prediction_log_pb2

IMAGE = np.zeros((1, 8, 8, 1), np.float32)
URL = "/v1/models/tiny:predict"


# ---------------------------------------------------------------- the cost of a request


class Counting:
    """A message class that notes its name whenever a message is made."""

    def __init__(self, kind, made):
        self._kind, self._made = kind, made

    def __call__(self, *args, **fields):
        self._made.append(self._kind.__name__)
        return self._kind(*args, **fields)

    def __getattr__(self, name):
        if name == "FromString":
            self._made.append(self._kind.__name__)
        return getattr(self._kind, name)

    def __instancecheck__(self, value):
        return isinstance(value, self._kind)


@pytest.fixture
def made(monkeypatch):
    """The names of the messages that are made during the test."""
    names = []
    for name, kind in list(vars(pb).items()):
        if isinstance(kind, type) and issubclass(kind, Message):
            monkeypatch.setattr(pb, name, Counting(kind, names))
    return names


@pytest.fixture
def acquired(server, monkeypatch):
    """The numbers of the versions that the server's requests acquire during the test."""
    numbers, acquire = [], server.repository.acquire

    @contextlib.contextmanager
    def note(spec):
        with acquire(spec) as found:
            numbers.append(found[0])
            yield found

    monkeypatch.setattr(server.repository, "acquire", note)
    return numbers


def post(server, path, document):
    answer = httpx.post(server.rest_address + path, json=document, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


DOCUMENTS = {
    "rows": {"instances": IMAGE.tolist()},
    "objects": {"instances": [{"images": IMAGE[0].tolist()}]},
    "columns": {"inputs": {"images": IMAGE.tolist()}, "signature_name": "serving_default"},
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_rest_predict_makes_no_message(server, made, document):
    post(server, URL, document)
    assert made == []


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_rest_predict_acquires_one_version(server, acquired, document):
    post(server, URL, document)
    assert acquired == [1]


def test_a_rest_predict_by_version_acquires_one_version(server, acquired):
    post(server, "/v1/models/tiny/versions/1:predict", DOCUMENTS["rows"])
    assert acquired == [1]


def test_a_grpc_predict_acquires_one_version(server, acquired):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"), inputs={"images": to_tensor(IMAGE)})
    with grpc.insecure_channel(server.address) as channel:
        data = channel.unary_unary(methods.PREDICT.path)(request.SerializeToString(), timeout=60)
    assert pb.PredictResponse.FromString(data).outputs
    assert acquired == [1]


# ---------------------------------------------------------------- version swaps


def doubling(number, dtype, output):
    """A version whose signature is its own: inputs of a dtype, `output` is their double plus the version's number."""
    definition = pb.SignatureDef(method_name="tensorflow/serving/predict")
    definition.inputs["x"].dtype = dtype
    definition.inputs["x"].tensor_shape.dim.add(size=-1)
    definition.outputs[output].dtype = dtype
    engine = FakeEngine(lambda inputs: {output: 2 * inputs["x"] + inputs["x"].dtype.type(number)})
    name = methods.DEFAULT_SIGNATURE
    return Servable({name: Signature.of(definition)}, {name: engine})


class Swapping:
    """Models whose newest version is another one each time that it is acquired."""

    def __init__(self):
        self._versions = {1: doubling(1, pb.DT_FLOAT, "first"), 2: doubling(2, pb.DT_INT32, "second")}
        self._next = 2

    @contextlib.contextmanager
    def acquire(self, spec):
        self._next = 3 - self._next
        yield self._next, self._versions[self._next]

    def runs_in(self, spec):
        return "litert"


@pytest.mark.parametrize(("swaps", "expected"), [(0, {"outputs": [7.0]}), (1, {"outputs": [8]})])
def test_a_rest_answer_is_of_one_version(swaps, expected):
    """The second version takes no floats, and its values are written without a point."""
    handler, asked = Handler(Service(Swapping())), read_url("POST", URL)
    for _ in range(swaps):
        handler.answer(asked, b'{"inputs": [3]}', Call())
    found = json.loads(handler.answer(asked, b'{"inputs": [3]}', Call()))
    assert found == expected
    assert type(found["outputs"][0]) is type(expected["outputs"][0])


@pytest.mark.parametrize(("number", "dtype", "output"), [(1, np.float32, "first"), (2, np.int32, "second")])
def test_a_grpc_answer_is_of_one_version(number, dtype, output):
    messages = Messages(Service(Swapping()))
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"), inputs={"x": to_tensor(np.array([3], dtype))})
    if number == 2:
        with contextlib.suppress(Exception):  # the first version takes other inputs
            messages.answer(methods.PREDICT, request, Call())
    response = messages.answer(methods.PREDICT, request, Call())
    assert response.model_spec.version.value == number
    assert {name: to_array(tensor).tolist() for name, tensor in response.outputs.items()} == {output: [6 + number]}


# ---------------------------------------------------------------- specs


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("a"),
        ModelSpec("a", version=0),
        ModelSpec("a", version=7, signature="s"),
        ModelSpec("a", label=""),
        ModelSpec("a", label="stable"),
    ],
)
def test_a_spec_survives_its_message(spec):
    assert read_spec(pb.ModelSpec.FromString(write_spec(spec).SerializeToString())) == spec


# ---------------------------------------------------------------- the request log


def logged(folder):
    files = sorted(map(str, folder.glob("*.tfrecord")))
    return [prediction_log_pb2.PredictionLog.FromString(data.numpy()) for data in tf.data.TFRecordDataset(files)]


@pytest.fixture
def logging_server(publish, tmp_path):
    """A server that logs all requests for `tiny` to the folder."""
    file = tmp_path / "models.config"
    file.write_text(
        f"""model_config_list {{ config {{
            name: "tiny" base_path: "{publish(1)}" model_platform: "tensorflow"
            logging_config {{
                log_collector_config {{ type: "file" filename_prefix: "{tmp_path / "log"}" }}
                sampling_config {{ sampling_rate: 1 }}
            }}
        }} }}"""
    )
    return ModelServer(model_config_file=file, rest_api_port=0)


def test_a_rest_predict_is_logged_as_messages(logging_server, tmp_path):
    with logging_server as server:
        answer = post(server, URL, {"instances": IMAGE.tolist()})
    (record,) = logged(tmp_path)
    request, response = record.predict_log.request, record.predict_log.response
    assert (request.model_spec.name, request.model_spec.HasField("version")) == ("tiny", False)
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"]), IMAGE)
    assert record.log_metadata.model_spec == response.model_spec
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "serving_default")
    found = tf.make_ndarray(response.outputs["probabilities"])
    np.testing.assert_array_equal(found, np.float32(answer["predictions"]))


def test_a_rest_classify_is_logged_as_messages(logging_server, tmp_path, png):
    example = {"image/encoded": {"b64": base64.b64encode(png).decode()}}
    sent = {"signature_name": "classify", "context": example, "examples": [{}]}
    with logging_server as server:
        ((best, _),) = post(server, "/v1/models/tiny:classify", sent)["results"]
    (record,) = logged(tmp_path)
    request, response = record.classify_log.request, record.classify_log.response
    assert len(request.input.example_list_with_context.examples) == 1
    context = request.input.example_list_with_context.context
    assert context.features.feature["image/encoded"].bytes_list.value == [png]
    assert response.result.classifications[0].classes[0].label == best[0]


@pytest.mark.parametrize("rate", [None, 0.0])
def test_messages_for_the_request_log_are_made_only_if_they_are_logged(tmp_path, rate):
    config = None
    if rate is not None:
        config = pb.LoggingConfig()
        config.log_collector_config.type, config.log_collector_config.filename_prefix = "file", str(tmp_path / "log")
        config.sampling_config.sampling_rate = rate
    observer = Observer()
    observer = Observer(observer.metrics, RequestLog(observer.metrics), lambda model: config)
    with observer.request("Predict", ModelSpec("tiny"), Call()) as seen:
        seen.exchange = lambda: pytest.fail("made")
    assert not list(tmp_path.iterdir())
