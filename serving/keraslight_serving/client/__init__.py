"""A client for image classifiers behind this package's server or TensorFlow Serving.

    with ClassifierClient("localhost:8500", "digits") as client:
        for ranking in client.classify(["seven.png", "one.png"]):
            print(ranking[0].label, ranking[0].score)

Needs numpy, grpcio, protobuf and pillow; neither TensorFlow nor Keras. `errors` draws what can be raised, and
`keraslight_serving.client.testing` has a channel for tests without a server.
"""

from keraslight_serving.client._client import ClassifierClient
from keraslight_serving.client._types import Classification, ModelMetadata, Signature, TensorSpec, VersionStatus
from keraslight_serving.client.errors import (
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
    "Classification",
    "ClassifierClient",
    "DeadlineExceeded",
    "InternalError",
    "InvalidInput",
    "ModelMetadata",
    "ModelNotFound",
    "Overloaded",
    "ServingError",
    "Signature",
    "SignatureNotFound",
    "TensorSpec",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "VersionStatus",
]
