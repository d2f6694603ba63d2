"""A client for image classifiers behind this package's server or TensorFlow Serving.

    with ClassifierClient("localhost:8500", "digits") as client:
        for ranking in client.classify(["seven.png", "one.png"]):
            print(ranking[0].label, ranking[0].score)

`AsyncClassifierClient` is the same for asyncio. Both speak gRPC, and REST to `http://localhost:8501`. They need grpcio,
protobuf and pillow, numpy for arrays alone and httpx for REST; neither TensorFlow nor Keras. `errors` draws what can be
raised, and `keraslight_serving.client.testing` has channels for tests without a server.
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
