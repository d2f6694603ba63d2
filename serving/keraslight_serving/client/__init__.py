"""A client for image classifiers on this package's server or TensorFlow Serving.

    with ClassifierClient("localhost:8500", "digits") as client:
        for ranking in client.classify(["seven.png", "one.png"]):
            print(ranking[0].label, ranking[0].score)

`AsyncClassifierClient` is the same for asyncio. Both support gRPC, and REST with targets such as
`http://localhost:8501`. They need grpcio, protobuf and pillow; numpy only for arrays, and httpx only for REST. They use
neither TensorFlow nor Keras. `errors` lists the errors, and `testing` has channels for tests without a server.

Each module imports only those above it:

    errors, _types, _transport    errors, results, and the seam to gRPC, REST and fakes
    _endpoints, _tls              addresses of the servers, used in turn; certificates
    _retry                        one request until it is answered: retries, hedging, deadline
    _calls                        calls to one model: headers, and errors
    _model                        predict, metadata and statuses of the model
    _pixels                       PIL images -> the pixels that servables decode
    _arrays, _images              predict and classify with numpy arrays; images of all kinds
    _rankings                     classify
    _rest_messages, _rest         channels that use REST
    _base                         what both clients have in common
    _blocking, _client            the blocking client
    _async_client                 the asyncio client
    telemetry, load_test, testing hooks, the load test, and fakes for users' tests
"""

from keraslight_serving.extras import require

require("keraslight_serving.client", "client", "grpc", "google.protobuf", "PIL")

from keraslight_serving.client._async_client import AsyncClassifierClient
from keraslight_serving.client._client import ClassifierClient
from keraslight_serving.client._retry import CallEvent, Retry
from keraslight_serving.client._tls import tls
from keraslight_serving.client._types import Answer, Classification, ModelMetadata, Signature, TensorSpec, VersionStatus
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
