"""`keraslight evaluate`: how good a model is, from a run folder, a model file, a .tflite file or a servable."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from keraslight.cli import _common
from keraslight.cli._common import console
from keraslight.cli._subjects import Subject, SubjectPath, load_subject, matched, numbers
from keraslight.errors import InvalidArgumentError

if TYPE_CHECKING:
    from keraslight.training import ImageData

Merge = enum.StrEnum("Merge", ["certain", "mean", "log"])
Part = enum.StrEnum("Part", {"held_out": "held-out", "test": "test", "all": "all"})


def evaluate(
    model: SubjectPath,
    data: Annotated[
        str | None,
        Option(
            help='"digits" (1,797 scans from scikit-learn), a folder with one subfolder per class, or a table.',
            show_default="the digits of a run that was trained on them",
        ),
    ] = None,
    part: Annotated[
        Part,
        Option(
            help="Images to use: those that `train` holds out of this data; those in test/, or of the split `test`, if "
            "others are held out; or all."
        ),
    ] = Part.held_out,
    scales: Annotated[
        str | None, Option(help="Views in these sizes, such as 0.75,1,1.3.", metavar="NUMBERS", show_default="1")
    ] = None,
    rotations: Annotated[
        str | None, Option(help="Views at these angles, such as -20,0,20 degrees.", metavar="NUMBERS", show_default="0")
    ] = None,
    flip: Annotated[bool, Option("--flip", help="Add the views mirrored left to right.")] = False,
    merge: Annotated[Merge, Option(help="How the answers to several views become one.")] = Merge.certain,
    thresholds: Annotated[
        str | None,
        Option(
            help="Scores above which a label is given, one or one per label; for independent scores.",
            metavar="NUMBERS",
            show_default="the model's, or 0.5",
        ),
    ] = None,
    robustness: Annotated[
        bool, Option(help="Measure scaled, turned, darker, brighter and flatter images as well.")
    ] = True,
    to: Annotated[
        Path | None, Option(help="Folder for evaluation.txt, evaluation.json and evaluation.png.", file_okay=False)
    ] = None,
    labels: _common.FileLabels = None,
    task: _common.Task = None,
    preprocessing: _common.Given = None,
    as_json: _common.Json = False,
) -> None:
    """Measure accuracy, errors per class, calibration and robustness.

    Several scales or rotations show the model as many views of each image.

    Examples:

      keraslight evaluate runs/net
      keraslight evaluate runs/net --data photos/ --to report
      keraslight evaluate net.tflite --data digits --json
      keraslight evaluate runs/net --scales 0.75,1,1.3 --rotations -20,0,20
    """
    sizes = (1.0,) if scales is None else numbers("--scales", scales)
    angles = (0.0,) if rotations is None else numbers("--rotations", rotations)
    limits = None if thresholds is None else numbers("--thresholds", thresholds)
    subject = load_subject(model, labels, task, preprocessing)
    images, source = _test(subject, data) if part is Part.test else _images(subject, model, data)

    from keraslight import analysis

    pixels, targets = _all(images) if part is Part.all else images.validation_arrays()
    names, targets = matched(subject, images, targets)
    viewed = (sizes, angles, flip) != ((1.0,), (0.0,), False)
    shown = subject.name
    if viewed:
        subject.model = _viewed(subject, pixels[:1], scales=sizes, rotations=angles, flip=flip, merge=merge.value)
        shown += f", {len(sizes) * len(angles) * (1 + flip)} views merged by {merge.value}"
    found = analysis.evaluate(
        subject.model,
        pixels,
        targets,
        names,
        task=subject.task,
        thresholds=limits or subject.thresholds or 0.5,
        changes=analysis.ROBUSTNESS if robustness else None,
        name=shown,
    )
    kind = "" if part is Part.all else f"{part.value} "
    which = f"{len(pixels):,} {kind}images of {source}"
    details = {
        "model": model,
        "data": source,
        "part": part.value,
        "views": {"scales": sizes, "rotations": angles, "flip": flip, "merge": merge.value} if viewed else None,
        **found.to_dict(),
    }
    if to is not None:
        from keraslight._files import write_file

        to.mkdir(parents=True, exist_ok=True)
        write_file(to / "evaluation.txt", f"{found}\n\n{which}\n")
        write_file(to / "evaluation.json", json.dumps(details, indent=2) + "\n")
        found.plot(to / "evaluation.png")
    if as_json:
        _common.print_json(details)
    else:
        console.print(f"{found}\n\n{which}")
        if to is not None:
            console.print(f"Report and picture: {to}")


def _images(subject: Subject, model: str, data: str | None) -> tuple[ImageData, str]:
    """The images to evaluate on, and their name: without `--data` those of a run that is known to hold them out."""
    if data is not None:
        return _common.load_images(data, subject.preprocessing), data
    recorded = _recorded(Path(model)) if subject.is_run else None
    if recorded is not None and subject.preprocessing is not None and list(subject.labels or ()) == list("0123456789"):
        from keraslight import training

        digits = training.load_digits(subject.preprocessing)
        if digits.fingerprint()["sha256"] == recorded.get("sha256"):  # of pixels, classes and split
            return digits, "digits"
    why = f"{model} doesn't say which images it was trained on" if subject.is_run else f"{model} holds no images"
    raise InvalidArgumentError(
        f'`--data` must say what to evaluate on: "digits", or a folder with one subfolder per class. Received: no '
        f"--data, and {why}."
    )


def _test(subject: Subject, data: str | None) -> tuple[ImageData, str]:
    """The images that neither train a model nor choose its best epoch, and the name of their data."""
    from keraslight import training

    spec = _common.known_preprocessing(subject.preprocessing, "--data")
    images = training.load_test(data, spec) if data not in (None, "digits") else None
    if images is None or data is None:
        raise InvalidArgumentError(
            "`--part test` needs `--data` with a part for training, one to hold out and one to test on. "
            f"Received: --data {data}."
        )
    return images, data


def _recorded(run: Path) -> Any:
    """The fingerprint of a run's data; None without."""
    from keraslight.training.run_folder import recorded_data

    return recorded_data(run)


def _all(images: ImageData) -> tuple[Any, Any]:
    import numpy as np

    whole = dataclasses.replace(images, validation_indices=np.arange(len(images.targets)))
    return whole.validation_arrays()


def _viewed(subject: Subject, image: Any, **views: Any) -> Any:
    """The model, or the function, that answers for several views of an image."""
    import keras
    import numpy as np

    import keraslight

    if isinstance(subject.model, keras.Model):
        return keraslight.views(subject.model, task=subject.task, **views)
    from keraslight import _tasks
    from keraslight._views import view_layers

    run: Callable[[Any], Any] = subject.model
    head = _tasks.read_outputs(run(image.astype(np.float32)), subject.task)
    copies, merged = view_layers(head, **views)

    def answer(images: Any) -> Any:
        scores = _tasks.probabilities(head, run(keras.ops.convert_to_numpy(copies(images))))
        return keras.ops.convert_to_numpy(merged(scores))

    return answer
