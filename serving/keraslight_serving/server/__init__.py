"""The embedded model server: TensorFlow Serving's gRPC protocol without its 500 MB.

In a process of its own: `python -m keraslight_serving.server --help`. Inside another program, or a test:

    with ModelServer("digits", "savedmodels/digits") as server:
        client = ClassifierClient(server.address, "digits")

The files, in the order in which a request meets them:

    _service.py      the calls: who answers what, in which order a request is checked
    _call.py         who asks, and until when
    _repository.py   the version folders: which one serves, loading the next, unloading the last
    _loader.py       how a version folder becomes a servable; _warmup.py replays its warmup requests
    _servable.py     one loaded version: which engine runs which signature
    _pipelines.py    signatures made of steps: decode, compute, rank
    _signatures.py   does a request fit a signature?
    _batching.py     joins requests to batches, as _batching_parameters.py says; _batch_queues.py has its threads
    engines/         litert.py and saved_model.py run the graphs
"""

from keraslight_serving.server._errors import StartError
from keraslight_serving.server._server import ModelServer

__all__ = ["ModelServer", "StartError"]
