"""Which of a model's versions a request means, and the answers where there is none such.

The texts are TensorFlow Serving's.
"""

from collections.abc import Iterable, Mapping, Sequence

from keraslight_serving.server.base.errors import StatusError, invalid, not_found
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.wire import serving_pb2 as pb


def chosen_version(spec: ModelSpec, labels: Mapping[str, int], loaded: Iterable[int]) -> int | None:
    """The version that a request asks for, loaded or not; without a choice the highest one that is.

    Args:
        spec: the model, and perhaps a version or a label.
        labels: of the model.
        loaded: its versions that serve.

    Returns:
        None: the highest was asked for, and nothing is loaded.

    Raises:
        StatusError: INVALID_ARGUMENT, no such label.
    """
    if spec.label is not None:
        if spec.label not in labels:
            raise invalid(f"Unrecognized servable version label: {spec.label}")
        return labels[spec.label]
    return max(loaded, default=None) if spec.version is None else spec.version


def not_served(name: str, number: int | None) -> StatusError:
    """NOT_FOUND: that version of the model, or with None any, isn't loaded."""
    which = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return not_found(f"Servable not found for request: {which}")


def chosen_statuses(spec: ModelSpec, statuses: Sequence[pb.ModelVersionStatus]) -> list[pb.ModelVersionStatus]:
    """Those of the version that is asked for; without a choice, or with a label, which TensorFlow Serving ignores, all.

    Raises:
        StatusError: NOT_FOUND, there are none.
    """
    if spec.version is not None:
        found = [status for status in statuses if status.version == spec.version]
        missing = f"version {spec.version}"
    else:
        found, missing = list(statuses), "any versions"
    if not found:
        raise not_found(f"Could not find {missing} of model {spec.name}")
    return found
