"""The messages of TensorFlow Serving's gRPC protocol, without TensorFlow.

serving.proto     Messages; `python -m keraslight_serving.wire._generate` generates `serving_pb2.py` from it.
methods.py        Calls: path, request and response.
dtypes.py         Dtypes: their names, and where a TensorProto holds their values.
ranked.py         Rankings <-> TensorProto, without numpy.
tensors.py        numpy arrays <-> TensorProto.
"""
