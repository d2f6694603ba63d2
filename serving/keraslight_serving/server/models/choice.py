"""Which of a model's versions a request means, and the errors if there is none.

The error texts are TensorFlow Serving's.
"""

from collections.abc import Iterable, Mapping, Sequence

from keraslight_serving.server.base.errors import StatusError, invalid, not_found
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.wire import serving_pb2 as pb


def chosen_version(spec: ModelSpec, labels: Mapping[str, int], loaded: Iterable[int]) -> int | None:
    """The version that a request names, loaded or not; otherwise the highest loaded version, or None without one.

    Raises:
        StatusError: INVALID_ARGUMENT, there is no such label.
    """
    if spec.label is None:
        return max(loaded, default=None) if spec.version is None else spec.version
    if spec.label not in labels:
        raise invalid(f"Unrecognized servable version label: {spec.label}")
    return labels[spec.label]


def not_served(name: str, number: int | None) -> StatusError:
    """NOT_FOUND: this version of the model, or with None any version, isn't loaded."""
    which = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return not_found(f"Servable not found for request: {which}")


def chosen_statuses(spec: ModelSpec, statuses: Sequence[pb.ModelVersionStatus]) -> list[pb.ModelVersionStatus]:
    """The status of the requested version; without a version, all. Labels are ignored, as in TensorFlow Serving.

    Raises:
        StatusError: NOT_FOUND, there are none.
    """
    found = [status for status in statuses if spec.version in (None, status.version)]
    if not found:
        missing = "any versions" if spec.version is None else f"version {spec.version}"
        raise not_found(f"Could not find {missing} of model {spec.name}")
    return found
