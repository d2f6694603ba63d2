"""The messages of TensorFlow Serving's gRPC protocol, without TensorFlow.

serving.proto     the messages; `serving_pb2.py` is generated from it by `python -m keraslight_serving.wire._generate`
methods.py        the calls: path, request, response
dtypes.py         names of the types
ranked.py         rankings <-> TensorProto, without numpy
tensors.py        numpy arrays <-> TensorProto
"""
