"""A client for image classifiers behind this package's server or TensorFlow Serving.

    with ClassifierClient("localhost:8500", "digits") as client:
        for ranking in client.classify(["seven.png", "one.png"]):
            print(ranking[0].label, ranking[0].score)

`AsyncClassifierClient` is the same for asyncio. Both speak gRPC, and REST to `http://localhost:8501`. They need grpcio,
protobuf and pillow, numpy for arrays alone and httpx for REST; neither TensorFlow nor Keras. `errors` draws what can be
raised, and `keraslight_serving.client.testing` has channels for tests without a server.

Inside, each module knows only those above it:

    errors, _types              what is raised, and what is answered
    _endpoints, _tls            where the servers are, turn by turn; certificates
    _retry                      one request until it is answered: retries, hedging, deadline
    _calls                      calls to one model: what is sent along, which error a failed one raises
    _model                      metadata and statuses: what is asked, and what is remembered
    _arrays, _images            numpy's arrays, imported by who has or wants some; images of all kinds
    _tensors                    predict
    _rankings                   classify
    _rest_messages, _rest       a channel that speaks REST
    _base                       the arguments of both clients
    _together, _client          the blocking one
    _async_client               the asyncio one
    telemetry, load_test, testing   beside them: hooks, the load test, fakes for users' tests

From `_retry` to `_rankings` there is no I/O but for reading images: generators, whose steps each client carries out.
"""

from keraslight_serving.client._async_client import AsyncClassifierClient
from keraslight_serving.client._client import ClassifierClient
from keraslight_serving.client._retry import CallEvent, Retry
from keraslight_serving.client._tls import tls
from keraslight_serving.client._types import (
    Answer,
    Classification,
    ModelMetadata,
    Signature,
    TensorSpec,
    VersionStatus,
)
from keraslight_serving.client.errors import (
    ClientClosed,
    DeadlineExceeded,
    InternalError,
    InvalidInput,
    ModelNotFound,
    Overloaded,
    ServingError,
    SignatureNotFound,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

__all__ = [
    "Answer",
    "AsyncClassifierClient",
    "CallEvent",
    "Classification",
    "ClassifierClient",
    "ClientClosed",
    "DeadlineExceeded",
    "InternalError",
    "InvalidInput",
    "ModelMetadata",
    "ModelNotFound",
    "Overloaded",
    "Retry",
    "ServingError",
    "Signature",
    "SignatureNotFound",
    "TensorSpec",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "VersionStatus",
    "tls",
]
