"""Which model, version and signature a request is for."""

from typing import NamedTuple


class ModelSpec(NamedTuple):
    """A model, one of its versions and one of its signatures.

    In a request, `version` or `label` selects a version; without either, the newest one that is loaded answers.
    In an answer, `version` and `signature` are the ones that were used.

    Attributes:
        name: Name of the model.
        version: Number of the version; None if the request leaves it open or gives a label.
        label: Label of the version; None if the request doesn't give one.
        signature: Name of the signature; empty for `serving_default`.
    """

    name: str = ""
    version: int | None = None
    label: str | None = None
    signature: str = ""
