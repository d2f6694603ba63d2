"""The calls that keraslight supports: their paths and the messages that they exchange."""

from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from keraslight_serving.wire import serving_pb2 as pb

# A packed message carries its name. Clients look it up, so it must be TensorFlow Serving's name, not ours.
SIGNATURE_DEF_MAP_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

DEFAULT_SIGNATURE = "serving_default"

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Method(NamedTuple, Generic[Request, Response]):
    """A unary call."""

    service: str
    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """The path on the wire, such as `/tensorflow.serving.PredictionService/Predict`."""
        return f"/{self.service}/{self.name}"


_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"

PREDICT = Method(_PREDICTION, "Predict", pb.PredictRequest, pb.PredictResponse)
CLASSIFY = Method(_PREDICTION, "Classify", pb.ClassificationRequest, pb.ClassificationResponse)
REGRESS = Method(_PREDICTION, "Regress", pb.RegressionRequest, pb.RegressionResponse)
MULTI_INFERENCE = Method(_PREDICTION, "MultiInference", pb.MultiInferenceRequest, pb.MultiInferenceResponse)
GET_MODEL_METADATA = Method(_PREDICTION, "GetModelMetadata", pb.GetModelMetadataRequest, pb.GetModelMetadataResponse)
GET_MODEL_STATUS = Method(_MODEL, "GetModelStatus", pb.GetModelStatusRequest, pb.GetModelStatusResponse)
HANDLE_RELOAD_CONFIG = Method(_MODEL, "HandleReloadConfigRequest", pb.ReloadConfigRequest, pb.ReloadConfigResponse)
# Ours: TensorFlow Serving has no call that lists its models, and answers this one with UNIMPLEMENTED.
LIST_MODELS = Method("keraslight.serving.Models", "ListModels", pb.ListModelsRequest, pb.ListModelsResponse)
