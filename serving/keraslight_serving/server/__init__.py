"""The embedded model server: TensorFlow Serving's gRPC and REST protocols without its 500 MB.

In its own process: `python -m keraslight_serving.server --help`. Inside a program or test:

    with ModelServer("digits", "savedmodels/digits") as server:
        client = ClassifierClient(server.address, "digits")

The modules and folders, each importing only those below it:

    __main__.py   the server as a process; _flags.py parses its command line
    workers/      several processes behind one port
    _server.py    the server as an object, which puts the rest together
    loading/      version folder -> servable; warmup requests
    rest/         JSON over HTTP
    rpc/          gRPC: ports, TLS, tokens, reflection
    testing.py    fakes of models and engines, for tests
    settings.py   all settings: keywords, flags, help and checks derive from them
    calls/        Predict, Classify ...: what is checked, run, counted and logged, for both protocols
    models/       models, versions and labels: which version a request means, and what a reload changes
    running/      one loaded version: signatures, pipelines, batching, and the engines that run the graphs
    telemetry/    metrics, log lines, the request log
    base/         calls, errors, CPUs, text protos

A request enters through `rpc` or `rest`, which convert it and hand it to `calls`. There it acquires a version from
`models` and runs it in `running`.
"""

from keraslight_serving.extras import require

require(
    "keraslight_serving.server",
    "server",
    *("grpc", "google.protobuf", "PIL", "numpy", "ai_edge_litert", "flatbuffers", "grpc_health.v1", "grpc_reflection"),
    "google_crc32c",
    later=("starlette", "uvicorn"),  # by servers with a REST port
)

from keraslight_serving.server._server import ModelServer
from keraslight_serving.server.base.errors import StartError

__all__ = ["ModelServer", "StartError"]
