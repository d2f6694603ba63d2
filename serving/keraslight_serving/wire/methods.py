"""The calls that keraslight knows: where they live and which messages they exchange."""

from typing import Any, NamedTuple

from keraslight_serving.wire import serving_pb2 as pb

# A packed message carries its name. Clients look it up, so it must be TensorFlow Serving's, not ours.
SIGNATURE_DEF_MAP_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

DEFAULT_SIGNATURE = "serving_default"


class Method(NamedTuple):
    """A unary call: gRPC service, method name, classes of the messages."""

    service: str
    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        """As on the wire, `/tensorflow.serving.PredictionService/Predict`."""
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
# Ours: TensorFlow Serving has no call that tells which models there are, and answers this one UNIMPLEMENTED.
LIST_MODELS = Method("keraslight.serving.Models", "ListModels", pb.ListModelsRequest, pb.ListModelsResponse)
