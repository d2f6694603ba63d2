"""What tests of several families' nets share."""

from typing import Any


def of_top(arguments: dict[str, Any], classes: int = 10) -> dict[str, Any]:
    """The arguments, with a number of classes where they ask for a top, which alone has classes."""
    if arguments.get("features_only") or not arguments.get("include_top", True):
        return arguments
    return {"classes": classes, **arguments}
