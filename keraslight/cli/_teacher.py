"""The options that give a training a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keraslight.errors import InvalidArgumentError

Teacher = Annotated[
    str | None, typer.Option(help="Also learn a trained model's answers: a run folder, .keras file or model name.")
]
Weights = Annotated[
    str | None, typer.Option(help="Weights of a teacher by name. [default: imagenet]", show_default=False)
]
Temperature = Annotated[float | None, typer.Option(help="Of the teacher's answers. [default: 4]", show_default=False)]
Alpha = Annotated[
    float | None, typer.Option(help="Share of the labels beside a teacher. [default: 0.1]", show_default=False)
]


def distillation(teacher: str | None, images: Any, weights: str | None = None, **settings: float | None) -> Any:
    """A `Distillation` with the teacher that `--teacher` names, or None without one.

    Args:
        teacher: A run folder, a .keras file, or a model's name. A model by name has its own number of classes, which
            must be the images'.
        images: The `ImageData` to train on.
        weights: What a model by name is filled with; None takes the published ImageNet weights.
        **settings: Arguments of `Distillation`; None leaves the default.

    Raises:
        InvalidArgumentError: there is no such teacher, it has other labels, or an option is given that needs one.
    """
    import keraslight
    from keraslight.training import Distillation, load_run

    settings = {name: value for name, value in settings.items() if value is not None}
    if teacher is None:
        given = {**settings, **({} if weights is None else {"teacher-weights": weights})}
        if given:
            flags = " ".join(f"--{name}={value}" for name, value in given.items())
            raise InvalidArgumentError(f"These options need `--teacher`. Received: {flags}.")
        return None
    path = Path(teacher)
    if weights is not None and path.exists():
        raise InvalidArgumentError(
            f"`--teacher-weights` must come with a model's name. Received: {weights}, for the file or folder {path}."
        )
    if path.is_dir():
        model, details = load_run(path)
        if list(details["labels"]) != list(images.labels):
            raise InvalidArgumentError(
                f"`--teacher` must have the images' classes, {list(images.labels)}. Received: a run with "
                f"{list(details['labels'])}."
            )
    elif path.is_file():
        model = keraslight.load_model(path)
    else:
        model = keraslight.create_model(
            teacher,
            weights=weights or "imagenet",
            input_shape=images.image_shape,
            # The one that its weights were trained with, which need not be the student's.
            preprocessing=keraslight.model_info(teacher).preprocessing or images.preprocessing,
        )
    return Distillation(model, **settings)
