"""`keraslight train` and `keraslight demo`: models trained on your own images, or on digits from start to end."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated

from typer import Option

from keraslight import _doors
from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.errors import InvalidArgumentError

Tracker = enum.StrEnum("Tracker", ["tensorboard", "mlflow", "wandb"])


def train(
    model: _common.Name,
    data: _common.Data,
    to: Annotated[Path | None, Option(help="Run folder to write.", show_default="runs/MODEL")] = None,
    weights: Annotated[
        str | None, Option(help='Initial weights: "imagenet" or a weights file.', show_default="random")
    ] = None,
    size: _common.DataSize = None,
    per_image: _common.PerImage = False,
    recipe: _common.RecipeName = None,
    epochs: Annotated[int | None, Option(help="Passes over the training images.", show_default="the recipe's")] = None,
    batch_size: Annotated[int | None, Option(help="Images per step.", show_default="the recipe's")] = None,
    learning_rate: Annotated[
        float | None, Option(help="Peak learning rate of the cosine schedule.", show_default="the recipe's")
    ] = None,
    progressive: Annotated[
        bool,
        Option("--progressive", help="Train in stages of growing image size and regularization, as EfficientNetV2."),
    ] = False,
    freeze: Annotated[
        str | None,
        Option(help='Layers not to train: a pattern such as "stage[12]_*", or "*" for all but the last.'),
    ] = None,
    freeze_epochs: Annotated[
        int | None, Option(help="First epochs in which they are frozen.", min=1, show_default="all")
    ] = None,
    layer_decay: Annotated[
        float | None, Option(help="Factor of the rate from each block to the one below it.", show_default="1")
    ] = None,
    mixed_precision: Annotated[
        bool, Option("--mixed-precision", help="Compute in bfloat16; for GPUs and TPUs.")
    ] = False,
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
    track: Annotated[
        Tracker | None,
        Option(help="Log metrics and the recipe there; a resumed run continues there.", show_default="nothing"),
    ] = None,
    seed: _common.Seed = 0,
    fresh: Annotated[bool, Option("--fresh", help="Discard an existing run and start over.")] = False,
    distribute: Annotated[
        bool,
        Option(
            "--distribute",
            help="Train on all GPUs of this machine, with Keras' JAX backend; and in several processes, if the next "
            "options, SLURM, Open MPI or Cloud TPU say so.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        Option(
            help="HOST:PORT of process 0, as the others reach it; the port must be free.",
            show_default="KERAS_DISTRIBUTION_JOB_ADDRESSES",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        Option(
            help="Number of processes, all started with these options.", show_default="KERAS_DISTRIBUTION_NUM_PROCESSES"
        ),
    ] = None,
    process: Annotated[
        int | None,
        Option(
            help="Number of this process, from 0. Process 0 alone writes the run folder.",
            show_default="KERAS_DISTRIBUTION_PROCESS_ID",
        ),
    ] = None,
    as_json: _common.Json = False,
) -> None:
    """Train a model on your images; resumes an interrupted run.

    The run folder receives best.keras, model.json (labels, preprocessing,
    metrics), history.csv and curves.png. A table with several labels per image
    trains independent scores, and model.json receives their thresholds.

    Examples:

      keraslight train mobilenet_v4_conv_small --data digits
      keraslight train vgg11 --data a/ --weights imagenet --recipe finetune
      keraslight train efficientnet_v2_b0 --data photos/ --progressive
      keraslight train resnet18 --data photos.csv --cache ~/.cache/photos
      keraslight train resnet18 --data photos/ --teacher runs/resnet50

    On two machines, with 0 and with 1 as the last number:

      keraslight train resnet18 --data photos/ --distribute \\
        --coordinator 10.0.0.1:9876 --processes 2 --process 0
    """
    import keraslight

    info = keraslight.model_info(model)
    first = _join(distribute, coordinator, processes, process, seed)

    from keraslight import training
    from keraslight.training.run_folder import START_OVER

    spec = _common.data_preprocessing(info, data, size, per_image=per_image)
    images = _common.load_images(data, spec, validation=validation, cache=cache)
    console.print(str(images))
    chosen = _common.chosen_recipe(recipe, data, epochs, batch_size, images.image_shape[2])
    given = {
        "learning_rate": learning_rate,
        "seed": seed,
        "freeze": freeze,
        "freeze_epochs": freeze_epochs,
        "layer_decay": layer_decay,
    }
    chosen = chosen.replace(**{name: value for name, value in given.items() if value is not None})
    randomly = chosen.augmentation is not None and chosen.augmentation.rand_layers
    stages = chosen.progressive or training.Progressive(magnitude=(5, 15) if randomly else (0, 0))
    side = max(images.image_shape[:2])
    chosen = chosen.replace(progressive=stages.scaled(side) if progressive else None)
    distillation = _common.load_teacher(teacher, images, teacher_weights, temperature=temperature, alpha=alpha)

    import keras

    if mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(seed)
    arguments = chosen.model if recipe is not None else {}
    if progressive and any(stages.dropout):
        arguments = {"dropout": stages.dropout[1]} | arguments
    channels = images.image_shape[2]
    if images.targets.ndim == 2:
        arguments = {"classifier_activation": "sigmoid"} | arguments
    try:
        net = keraslight.create_model(
            model,
            weights=weights,
            classes=len(images.labels),
            input_shape=(None, None, channels) if progressive else images.image_shape,
            preprocessing=images.preprocessing,
            **arguments,
        )
    except InvalidArgumentError as error:
        if not progressive:
            raise
        raise InvalidArgumentError(
            f"`--progressive` needs a model that takes images of any size. Received: {model!r}. {error}"
        ) from error
    run_dir = to or Path("runs", net.name)
    try:
        result = training.train(
            net,
            images,
            chosen,
            run_dir=run_dir,
            resume=not fresh,
            distillation=distillation,
            track=None if track is None else track.value,
        )
    except InvalidArgumentError as error:  # in the words of the command line
        text = str(error).replace(START_OVER, "pass another `--to` or `--fresh`, which overwrites the run")
        raise InvalidArgumentError(text) from error
    console.print(
        f"Best epoch {result.best_epoch} of {result.epochs}: {result.best_accuracy:.2%} of {images.validation_count} "
        f"held-out images, after {result.seconds:.0f} s. Run folder: {result.run_dir}"
    )
    if as_json and first:
        fields = ("best_epoch", "epochs", "best_accuracy", "seconds", "history", "run_dir")
        counts = {"train_count": images.train_count, "validation_count": images.validation_count}
        counts |= {"skipped": images.skipped, "ignored": len(images.ignored)}
        figures = {name: getattr(result, name) for name in fields} | counts
        _common.print_json(figures | {"data": images.report().to_dict()})


def _join(distribute: bool, coordinator: str | None, processes: int | None, process: int | None, seed: int) -> bool:
    """Joins the other processes, before Keras is imported. Says whether this is the first one, which prints."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if not distribute:
        flags = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
        if flags:
            raise InvalidArgumentError(f"These options need `--distribute`. Received: {flags}.")
        return True
    _doors.require("keraslight train --distribute", "distribute", "jax")
    os.environ["KERAS_BACKEND"] = "jax"

    from keraslight import training

    distribution = training.distribute(coordinator, processes, process, seed=seed)
    import jax

    devices, count = distribution.num_model_replicas, distribution.num_processes
    console.print(f"Training on {devices} device{'s' * (devices > 1)} of {count} process{'es' * (count > 1)}.")
    console.quiet = jax.process_index() > 0
    return not console.quiet


def demo(
    to: Annotated[Path, Option(help="Output folder.")] = Path("runs/demo"),
    seed: _common.Seed = 0,
    epochs: Annotated[
        int | None,
        Option(help="Passes of the float training and of pruning: 3 for a quick look.", show_default="12 each", min=1),
    ] = None,
    search: Annotated[
        bool,
        Option("--search", help="Find the network by a short search and narrow it by NetAdapt: some 10 minutes more."),
    ] = False,
    as_json: _common.Json = False,
) -> None:
    """Train, prune, quantize, export and serve a digit classifier.

    Compares every served prediction with the model in this process, and exits
    with code 1 if any stage disagrees.

    Examples:

      keraslight demo
      keraslight demo --search --to runs/found
    """
    from keraslight.cli._demo import run_demo

    figures = run_demo(to, seed=seed, epochs=epochs, search=search)
    if as_json:
        _common.print_json(figures)
