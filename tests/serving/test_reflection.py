"""gRPC reflection: a client that knows nothing finds the calls, and can call them."""

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2, predict_pb2, prediction_service_pb2

SERVICES = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


@pytest.fixture(scope="module")
def pool(channel):
    """Filled by asking the server, as grpcurl does."""
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def call(channel, pool, service, method, body):
    """What grpcurl does: JSON in, JSON out."""
    descriptor = pool.FindServiceByName(service).methods_by_name[method]
    request = message_factory.GetMessageClass(descriptor.input_type)()
    json_format.ParseDict(body, request, descriptor_pool=pool)
    answer = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
    )(request, timeout=60)
    return json_format.MessageToDict(answer, descriptor_pool=pool)


def test_services_are_listed(channel):
    listed = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert sorted(listed) == [*SERVICES, "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"]


def test_a_prediction_from_json(channel, pool):
    tensor = {
        "dtype": "DT_FLOAT",
        "tensorShape": {"dim": [{"size": n} for n in (1, 8, 8, 1)]},
        "floatVal": [0.5],
    }
    body = {"modelSpec": {"name": "tiny", "version": 1}, "inputs": {"images": tensor}}
    answer = call(channel, pool, "tensorflow.serving.PredictionService", "Predict", body)
    assert sum(answer["outputs"]["probabilities"]["floatVal"]) == pytest.approx(1)
    assert answer["modelSpec"] == {"name": "tiny", "version": "1", "signatureName": "serving_default"}


def test_metadata_unpacks(channel, pool):
    body = {"modelSpec": {"name": "tiny"}, "metadataField": ["signature_def"]}
    answer = call(channel, pool, "tensorflow.serving.PredictionService", "GetModelMetadata", body)
    packed = answer["metadata"]["signature_def"]
    assert packed["@type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert packed["signatureDef"]["serving_default"]["inputs"]["images"]["dtype"] == "DT_FLOAT"


def test_status_and_health(channel, pool):
    answer = call(channel, pool, "tensorflow.serving.ModelService", "GetModelStatus", {"modelSpec": {"name": "tiny"}})
    assert answer["modelVersionStatus"] == [{"version": "1", "state": "AVAILABLE", "status": {}}]
    assert call(channel, pool, "grpc.health.v1.Health", "Check", {"service": "tiny"}) == {"status": "SERVING"}


@pytest.mark.parametrize("official", [prediction_service_pb2, model_service_pb2])
def test_what_is_described_fits_tensorflow_serving(pool, official):
    for service in official.DESCRIPTOR.services_by_name.values():
        for ours in pool.FindServiceByName(service.full_name).methods:
            theirs = service.methods_by_name[ours.name]
            assert ours.input_type.name == theirs.input_type.name
            assert ours.output_type.name == theirs.output_type.name
            for ours_, theirs_ in ((ours.input_type, theirs.input_type), (ours.output_type, theirs.output_type)):
                for field in ours_.fields:
                    assert theirs_.fields_by_name[field.name].number == field.number


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
