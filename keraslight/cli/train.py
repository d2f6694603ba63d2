"""`keraslight train` and `keraslight demo`: models trained on your own images, or on digits from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.errors import InvalidArgumentError


def train(
    model: _common.Name,
    data: _common.Data,
    to: Annotated[Path | None, Option(help="Run folder to write.", show_default="runs/MODEL")] = None,
    weights: Annotated[
        str | None, Option(help='Initial weights: "imagenet" or a weights file.', show_default="random")
    ] = None,
    size: Annotated[
        int | None,
        Option(help="Side of the square input, in pixels (at least 32).", show_default="the model's; 48 for digits"),
    ] = None,
    epochs: Annotated[int | None, Option(help="Passes over the training images.", show_default="the recipe's")] = None,
    batch_size: Annotated[int | None, Option(help="Images per step.", show_default="the recipe's")] = None,
    learning_rate: Annotated[
        float | None, Option(help="Peak learning rate of the cosine schedule.", show_default="the recipe's")
    ] = None,
    teacher: _common.Teacher = None,
    teacher_weights: _common.TeacherWeights = None,
    temperature: _common.Temperature = None,
    alpha: _common.Alpha = None,
    validation: Annotated[
        str | None,
        Option(
            help="Images to hold out: a folder with the same class folders, or a text file with one path per line.",
            show_default="those in val/ or test/, or a fifth of each class",
        ),
    ] = None,
    cache: Annotated[
        Path | None, Option(help="Folder for the decoded images, for data that doesn't fit into memory.")
    ] = None,
    seed: _common.Seed = 0,
    fresh: Annotated[bool, Option("--fresh", help="Discard an existing run and start over.")] = False,
    as_json: _common.Json = False,
) -> None:
    """Train a model on your images; resumes an interrupted run.

    The run folder receives best.keras, model.json (labels, preprocessing,
    metrics), history.csv and curves.png.

    Examples:

      keraslight train mobilenet_v4_conv_small --data digits
      keraslight train resnet18 --data photos/ --weights imagenet --epochs 20
      keraslight train resnet18 --data photos.csv --cache ~/.cache/photos
      keraslight train resnet18 --data photos/ --teacher runs/resnet50
    """
    import keraslight

    info = keraslight.model_info(model)

    from keraslight import training
    from keraslight.training.run_folder import START_OVER

    if data == "digits":
        spec, recipe = training.DIGITS_PREPROCESSING, training.DIGITS_RECIPE
    else:
        spec = _common.known_preprocessing(info.preprocessing, "--data")
        recipe = training.Recipe()
    if size:
        spec = spec.replace(size=(size, size))
    images = _common.load_images(data, spec, validation=validation, cache=cache)
    console.print(str(images))
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if epochs is not None:
        changes["warmup_epochs"] = min(recipe.warmup, epochs - 1)
    distillation = _common.load_teacher(teacher, images, teacher_weights, temperature=temperature, alpha=alpha)

    import keras

    keras.utils.set_random_seed(seed)
    net = keraslight.create_model(
        model,
        weights=weights,
        classes=len(images.labels),
        input_shape=images.image_shape,
        preprocessing=images.preprocessing,
    )
    recipe, run_dir = recipe.replace(**changes), to or Path("runs", net.name)
    try:
        result = training.train(net, images, recipe, run_dir=run_dir, resume=not fresh, distillation=distillation)
    except InvalidArgumentError as error:  # in the words of the command line
        text = str(error).replace(START_OVER, "pass another `--to` or `--fresh`, which overwrites the run")
        raise InvalidArgumentError(text) from error
    console.print(
        f"Best epoch {result.best_epoch} of {result.epochs}: {result.best_accuracy:.2%} of {images.validation_count} "
        f"held-out images, after {result.seconds:.0f} s. Run folder: {result.run_dir}"
    )
    if as_json:
        fields = ("best_epoch", "epochs", "best_accuracy", "seconds", "history", "run_dir")
        counts = {"train_count": images.train_count, "validation_count": images.validation_count}
        counts |= {"skipped": images.skipped, "ignored": len(images.ignored)}
        figures = {name: getattr(result, name) for name in fields} | counts
        _common.print_json(figures | {"data": images.report().to_dict()})


def demo(
    to: Annotated[Path, Option(help="Output folder.")] = Path("runs/demo"),
    seed: _common.Seed = 0,
    epochs: Annotated[
        int | None,
        Option(help="Passes of the float training and of pruning: 3 for a quick look.", show_default="12 each", min=1),
    ] = None,
    as_json: _common.Json = False,
) -> None:
    """Train, prune, quantize, export and serve a digit classifier.

    Compares every served prediction with the model in this process, and exits
    with code 1 if any stage disagrees.
    """
    from keraslight.cli._demo import run_demo

    figures = run_demo(to, seed=seed, epochs=epochs)
    if as_json:
        _common.print_json(figures)
