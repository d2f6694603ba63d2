"""What the client answers with."""

from dataclasses import dataclass
from typing import NamedTuple

from keraslight_serving.client.errors import ServingError


class Classification(NamedTuple):
    """One class of a ranking.

    Attributes:
        label: the name of the class.
        score: its probability, 0..1.
        index: its place among the model's classes, from 0.
    """

    label: str
    score: float
    index: int


class Answer(NamedTuple):
    """What became of one image.

    Attributes:
        source: the image's path, or `images[3]`.
        ranking: its classes, best first; empty with an error.
        error: why there is none.
    """

    source: str
    ranking: list[Classification]
    error: ServingError | None = None


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Attributes:
        name: as in `predict`'s dict.
        dtype: numpy's name, `float32`, `int8` ..., or `string`.
        shape: None for a free size, or for the whole where nothing is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way to call a model.

    Attributes:
        name: as `predict` takes it.
        method: `tensorflow/serving/predict`, `tensorflow/serving/classify` ...
        inputs, outputs: by name.
    """

    name: str
    method: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelMetadata:
    """A model, as the server describes it.

    Attributes:
        model: its name.
        version: the one that answered.
        signatures: by name.
    """

    model: str
    version: int
    signatures: dict[str, Signature]


@dataclass(frozen=True)
class VersionStatus:
    """Where a version is in its life.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: why it could not be loaded, else empty.
    """

    version: int
    state: str
    error: str
