"""gRPC reflection: clients such as grpcurl get services and messages from the server and need no .proto files.

Our messages have a package name of their own, so that they can be loaded into one process with TensorFlow's. Here they
are described again in the package `tensorflow.serving`, in a descriptor pool that nothing else uses. That includes
messages that TensorFlow has in the package `tensorflow` (TensorProto ...): names don't appear on the wire.
"""

from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, wrappers_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from keraslight_serving.server.base.errors import CODES
from keraslight_serving.wire import methods, serving_pb2 as pb

PACKAGE = "tensorflow.serving"

# The server declares these as bytes and an integer; a client with only the description needs their real types.
_MEANT = {
    ("ExampleList", "examples"): "Example",
    ("ExampleListWithContext", "examples"): "Example",
    ("ExampleListWithContext", "context"): "Example",
    ("StatusProto", "error_code"): "Code",
}


def add_to_server(server: grpc.Server) -> None:
    """Registers `grpc.reflection.v1alpha`."""
    names = sorted({method.service for method in _known()})
    names += [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server, pool=make_pool())


def make_pool() -> descriptor_pool.DescriptorPool:
    """Returns a pool with the services of this server and all messages that they need."""
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, wrappers_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    ours = f".{file.package}."
    file.name, file.package = "tensorflow_serving/apis/services.proto", PACKAGE
    codes = file.enum_type.add(name="Code")
    for number, code in CODES.items():
        codes.value.add(name=code.name, number=number)
    for message in file.message_type:
        for field in message.field:
            if meant := _MEANT.get((message.name, field.name)):
                field.type = field.TYPE_ENUM if meant == codes.name else field.TYPE_MESSAGE
                field.type_name = ours + meant
        _rename(message, ours)
    services = {}
    for method in _known():
        name = method.service.rpartition(".")[2]
        if name not in services:
            services[name] = file.service.add(name=name)
        ends = [f".{PACKAGE}.{message.DESCRIPTOR.name}" for message in (method.request, method.response)]
        services[name].method.add(name=method.name, input_type=ends[0], output_type=ends[1])
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _known() -> list[methods.Method[Any, Any]]:
    """Returns TensorFlow Serving's calls."""
    found = (value for value in vars(methods).values() if isinstance(value, methods.Method))
    return [method for method in found if method.service.startswith(f"{PACKAGE}.")]


def _rename(message: descriptor_pb2.DescriptorProto, ours: str) -> None:
    for field in message.field:
        if field.type_name.startswith(ours):
            field.type_name = f".{PACKAGE}.{field.type_name.removeprefix(ours)}"
    for nested in message.nested_type:
        _rename(nested, ours)
