"""What the client returns."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from keraslight_serving.client.errors import InvalidInput

Threshold = float | Literal["model"] | None
"""Score above which a class is in a ranking; see `ClassifierClient.classify`."""


class Classification(NamedTuple):
    """One class of a ranking: a tuple that can be unpacked. `index` is the class's, not the method of tuples.

    Attributes:
        label: Name of the class.
        score: Probability, 0 to 1.
        index: Position among the model's classes, from 0.
    """

    label: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here; the name is public


class Answer(NamedTuple):
    """The result for one image.

    Attributes:
        source: Path of the image, or `images[3]`.
        ranking: Classes, best first; empty if there is an error.
        error: Why the image could not be classified.
    """

    source: str
    ranking: list[Classification]
    error: InvalidInput | None = None


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Attributes:
        name: Key in the dict that `predict` takes or returns.
        dtype: numpy's name, such as `float32` or `int8`, or `string`.
        shape: Sizes, None for variable ones; None if even the number of dimensions is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way to call a model.

    `method` is `tensorflow/serving/predict`, `tensorflow/serving/classify` or `tensorflow/serving/regress`.
    """

    name: str
    method: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelMetadata:
    """The signatures of a model's version, by name, as the server describes them."""

    model: str
    version: int
    signatures: dict[str, Signature]


@dataclass(frozen=True)
class VersionStatus:
    """State of a model version.

    Attributes:
        version: Version number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Why the version could not be loaded; empty otherwise.
    """

    version: int
    state: str
    error: str
