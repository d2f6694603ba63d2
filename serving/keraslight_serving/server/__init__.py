"""The embedded model server: TensorFlow Serving's gRPC and REST protocols without its 500 MB.

In a process of its own: `python -m keraslight_serving.server --help`. Inside another program, or a test:

    with ModelServer("digits", "savedmodels/digits") as server:
        client = ClassifierClient(server.address, "digits")

The files, in the order in which a request meets them:

    _service.py      the calls: who answers what, in which order a request is checked; _on_examples.py: on tf.Examples
    _call.py         who asks, and until when
    _repository.py   the models: which one is asked for; a reload changes them
    _versions.py     one model's versions: those that serve, come and go, and their labels
    _choice.py       which of these versions a request means
    _servable.py     one loaded version: which engine runs which signature
    _signatures.py   does a request fit a signature?
    _pipelines.py    signatures made of steps: decode, compute, rank
    _batching.py     joins requests to batches, as _batching_parameters.py says; _batch_queues.py has its threads
    engines/         litert.py and saved_model.py run the graphs; _undeclared.py: signatures of old .tflite files
    rest/            the same calls as JSON over HTTP

Around them:

    _server.py       the server as an object; _grpc_server.py: its ports, _security.py: TLS and tokens
    _config.py       which models, which of their versions, and labels; _text_proto.py reads such files
    _model.py        the thread that follows a model's folder (_folders.py), and loads and gives up versions accordingly
    _loader.py       how a version folder becomes a servable; _warmup.py replays its warmup requests
    _observe.py      counts and logs each call: _metrics.py, _logging.py, _request_log.py; _tfrecord.py: its files
    _reflection.py   tells grpcurl what can be called
    _cpus.py         how many CPUs there are for whom
    _errors.py       what goes wrong
    __main__.py      the server as a process; _flags.py: its command line
    _workers.py      several processes behind one port; _worker.py, _follower.py: each of them, _line.py: their talk
"""

from keraslight_serving.server._server import ModelServer
from keraslight_serving.server.base.errors import StartError

__all__ = ["ModelServer", "StartError"]
