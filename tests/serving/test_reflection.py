"""gRPC reflection: clients that know nothing find the calls, and can make them. `grpc_requests` is other people's."""

import base64

import grpc
import pytest
from google.protobuf import descriptor, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_requests.client import Client, CustomArgumentParsers
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2, predict_pb2, prediction_service_pb2

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def pool(channel):
    """Filled by asking the server, as grpcurl does."""
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


@pytest.fixture(scope="module")
def client(server):
    """It has no descriptors but those that it gets from the server."""
    pool = descriptor_pool.DescriptorPool()
    to_dict = {"descriptor_pool": pool, "preserving_proto_field_name": True}
    parsers = CustomArgumentParsers(to_dict, {"descriptor_pool": pool})
    client = Client(server.address, descriptor_pool=pool, message_parsers=parsers)
    yield client
    client.channel.close()


@pytest.fixture(scope="module")
def ask(client):
    """`ask(service, method, body)`: JSON in, JSON out."""
    return lambda service, method, body: client.request(service, method, body, timeout=60)


def tensor(dtype, *shape, **values):
    return {"dtype": dtype, "tensor_shape": {"dim": [{"size": size} for size in shape]}, **values}


def text(data):
    return base64.b64encode(data).decode()


def test_services_are_listed(client):
    ours = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
    assert sorted(client.service_names) == [*ours, MODEL, PREDICTION]
    calls = ["Classify", "GetModelMetadata", "MultiInference", "Predict", "Regress"]
    assert sorted(client.service(PREDICTION).method_names) == calls
    assert sorted(client.service(MODEL).method_names) == ["GetModelStatus", "HandleReloadConfigRequest"]


def test_predictions(ask, pixels, png):
    body = {"model_spec": {"name": "tiny", "version": 1}, "inputs": {}}
    answers = []
    for values in ({"float_val": [0.5]}, {"tensor_content": text(b"\0\0\0\x3f" * 64)}):  # 0.5, all over the image
        body["inputs"]["images"] = tensor("DT_FLOAT", 1, 8, 8, 1, **values)
        answers.append(ask(PREDICTION, "Predict", body))
    assert answers[0] == answers[1]
    assert answers[0]["model_spec"] == {"name": "tiny", "version": "1", "signature_name": "serving_default"}
    assert sum(answers[0]["outputs"]["probabilities"]["float_val"]) == pytest.approx(1)

    body = {
        "model_spec": {"name": "tiny", "signature_name": "encoded"},
        "inputs": {"image_bytes": tensor("DT_STRING", 1, string_val=[text(png)])},
        "output_filter": ["classes", "probabilities"],
    }
    encoded = ask(PREDICTION, "Predict", body)["outputs"]
    assert sorted(encoded) == ["classes", "probabilities"]
    body = {
        "model_spec": {"name": "tiny"},
        "inputs": {"images": tensor("DT_FLOAT", 1, 8, 8, 1, float_val=pixels[0].ravel().tolist())},
    }
    raw = ask(PREDICTION, "Predict", body)["outputs"]
    assert encoded["probabilities"]["float_val"] == pytest.approx(raw["probabilities"]["float_val"], abs=1e-4)


def test_examples(ask, png):
    feature = {"image/encoded": {"bytes_list": {"value": [text(png)]}}}
    given = {"example_list": {"examples": [{"features": {"feature": feature}}] * 2}}
    tasks = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}
    specs = {name: {"name": "tiny", "signature_name": name} for name in tasks}
    classified = ask(PREDICTION, "Classify", {"model_spec": specs["classify"], "input": given})["result"]
    regressed = ask(PREDICTION, "Regress", {"model_spec": specs["regress"], "input": given})["result"]
    assert [len(one["classes"]) for one in classified["classifications"]] == [2, 2]
    assert len(regressed["regressions"]) == 2
    body = {"tasks": [{"model_spec": specs[name], "method_name": tasks[name]} for name in tasks], "input": given}
    both = ask(PREDICTION, "MultiInference", body)["results"]
    assert [both[0]["classification_result"], both[1]["regression_result"]] == [classified, regressed]


def test_metadata_unpacks(ask):
    body = {"model_spec": {"name": "tiny"}, "metadata_field": ["signature_def"]}
    packed = ask(PREDICTION, "GetModelMetadata", body)["metadata"]["signature_def"]
    assert packed["@type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert packed["signature_def"]["serving_default"]["inputs"]["images"]["dtype"] == "DT_FLOAT"


def test_status_and_health(ask):
    answer = ask(MODEL, "GetModelStatus", {"model_spec": {"name": "tiny"}})
    assert answer["model_version_status"] == [{"version": "1", "state": "AVAILABLE", "status": {}}]
    assert ask("grpc.health.v1.Health", "Check", {"service": "tiny"}) == {"status": "SERVING"}


def test_errors_come_through(ask):
    cases = [
        (PREDICTION, "Predict", {"model_spec": {"name": "no"}}, "NOT_FOUND", "Latest(no)"),
        (PREDICTION, "Predict", {"model_spec": {"name": "tiny"}}, "INVALID_ARGUMENT", "Missing but required: {images}"),
        (MODEL, "HandleReloadConfigRequest", {}, "INVALID_ARGUMENT", "Only ModelConfigList is currently supported"),
    ]
    for service, method, body, code, part in cases:
        with pytest.raises(grpc.RpcError) as caught:
            ask(service, method, body)
        assert caught.value.code().name == code
        assert part in caught.value.details()


@pytest.mark.parametrize("official", [prediction_service_pb2, model_service_pb2])
def test_what_is_described_fits_tensorflow_serving(pool, official):
    compared = set()

    def compare(ours, theirs):
        assert ours.name == theirs.name
        if ours.full_name in compared:
            return
        compared.add(ours.full_name)
        if isinstance(ours, descriptor.EnumDescriptor):
            numbers = {value.name: value.number for value in theirs.values}
            assert {value.name: value.number for value in ours.values}.items() <= numbers.items()
            return
        for field in ours.fields:
            same = theirs.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (same.number, same.type, same.is_repeated)
            for kind, their_kind in ((field.message_type, same.message_type), (field.enum_type, same.enum_type)):
                if kind is not None:
                    compare(kind, their_kind)

    for service in official.DESCRIPTOR.services_by_name.values():
        for ours in pool.FindServiceByName(service.full_name).methods:
            theirs = service.methods_by_name[ours.name]
            compare(ours.input_type, theirs.input_type)
            compare(ours.output_type, theirs.output_type)
    assert len(compared) > 15


def test_the_names_stay_out_of_the_default_pool():
    file = predict_pb2.DESCRIPTOR.pool.FindFileContainingSymbol("tensorflow.serving.GetModelStatusRequest")
    assert file is get_model_status_pb2.DESCRIPTOR
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("tensorflow_serving/apis/services.proto")


def test_an_unknown_symbol(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Thing")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
