"""Which model, version and signature a request is for."""

from typing import NamedTuple


class ModelSpec(NamedTuple):
    """A model, one of its versions and one of its signatures.

    In a request, `version` or `label` selects a version; without either, the newest one that is loaded answers. In an
    answer, `version` and `signature` are the ones that were used.
    """

    name: str = ""
    version: int | None = None
    label: str | None = None
    signature: str = ""  # empty for `serving_default`
