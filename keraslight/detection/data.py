"""Annotated images: COCO's JSON, Pascal VOC's folders, and synthetic scenes of digits."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keraslight._scene_files import existing_file, existing_folder, read_image
from keraslight._scenes import LABELS, draw_scene
from keraslight._windows import SceneAugmentation, whole
from keraslight.detection.evaluation import Truths
from keraslight.errors import DataError, InvalidArgumentError


class Batch(NamedTuple):
    """Images and their objects for a training step.

    Args:
        images: float32 (B, H, W, C), raw pixels 0..255.
        boxes: float32 (B, T, 4), left, top, right, bottom in pixels of these images.
        labels: int32 (B, T); -1 for padding.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DetectionData(Sequence[tuple[np.ndarray, Truths]]):
    """Images with boxes, which are read when they are needed: pairs (uint8 (H, W, 3), `Truths`).

    Args:
        labels: Names of the classes.
        truths: The objects of each image.
        read: Function from an image's place to its pixels, uint8 (H, W, 3).
    """

    labels: tuple[str, ...]
    truths: tuple[Truths, ...]
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(len(self))[index]
            return dataclasses.replace(
                self, truths=tuple(self.truths[n] for n in places), read=lambda n: self.read(places[n])
            )
        place = range(len(self))[index]
        return self.read(place), self.truths[place]

    def batches(
        self,
        size: tuple[int, int],
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        augmentation: SceneAugmentation | None = None,
    ) -> Iterator[Batch]:
        """Yields the images of an epoch in batches; the last one may be smaller.

        Objects that belong to crowds are left out: they are many in one box.

        Args:
            size: Height and width to which images are stretched, in pixels.
            batch_size: Images per batch, at least 1.
            seed: Seed of order and augmentation. None keeps the order.
            epoch: Number of the epoch, at least 0, which changes both.
            augmentation: Random changes, for which a seed is needed.

        Raises:
            InvalidArgumentError: `batch_size` is below 1, or there is an augmentation without a seed.
        """
        if batch_size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
        if augmentation is not None and seed is None:
            raise InvalidArgumentError("`augmentation` needs a `seed`. Received: seed=None.")
        order = np.arange(len(self))
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(len(self))
        most = max([1, *(len(truths.labels) for truths in self.truths)])
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            boxes, labels = np.zeros((len(places), most, 4), np.float32), np.full((len(places), most), -1, np.int32)
            images = []
            for n, place in enumerate(places):
                image, truths = self[int(place)]
                window = whole(image) if augmentation is None else augmentation.draw(image, (seed, epoch, int(place)))
                images.append(window.pixels(image, size))
                moved, kept = window.boxes(np.asarray(truths.boxes, float), size)
                if truths.crowds is not None:
                    kept &= ~np.asarray(truths.crowds, bool)
                count = int(kept.sum())
                boxes[n, :count], labels[n, :count] = moved[kept], np.asarray(truths.labels)[kept]
            yield Batch(np.stack(images), boxes, labels)


def load_scenes(count: int = 1200, *, size: int = 128, seed: int = 0, held_out: bool = False) -> DetectionData:
    """Returns synthetic scenes of scikit-learn's handwritten digits on its two photographs.

    Args:
        count: Number of images, at least 1.
        size: Side of the images in pixels, 64 to 256.
        seed: Seed: another one gives other scenes.
        held_out: Whether digits and backgrounds are from the part that other scenes don't have.

    Raises:
        InvalidArgumentError: A number is out of range.
    """
    if count < 1:
        raise InvalidArgumentError(f"`count` must be at least 1. Received: count={count}.")
    scenes = [draw_scene((seed, n), size, held_out=held_out) for n in range(count)]
    truths = tuple(Truths(scene.boxes, scene.labels) for scene in scenes)
    return DetectionData(LABELS, truths, lambda place: scenes[place].image)


def load_coco(annotations: str | Path, images: str | Path) -> DetectionData:
    """Reads a JSON file in COCO's format.

    Classes are numbered in the order of the categories' ids, which may have gaps. Boxes without an area are left out.

    Args:
        annotations: The JSON file, with `images`, `annotations` and `categories`.
        images: Folder that the images' `file_name` refer to.

    Raises:
        InvalidArgumentError: A path doesn't exist.
        DataError: The file is not in this format, or an image is missing.
    """
    file, folder = existing_file(annotations, "annotations"), existing_folder(images, "images")
    try:
        stored = json.loads(file.read_text("utf-8"))
        categories = sorted(stored["categories"], key=lambda row: row["id"])
        places = {row["id"]: place for place, row in enumerate(categories)}
        rows: dict[Any, list[Any]] = {image["id"]: [] for image in stored["images"]}
        for row in stored["annotations"]:
            if row["bbox"][2] > 0 and row["bbox"][3] > 0:
                rows[row["image_id"]].append(row)
        truths = tuple(_coco_truths(rows[image["id"]], places) for image in stored["images"])
        files = [folder / image["file_name"] for image in stored["images"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{file} is not a COCO file: {type(error).__name__}: {error}.") from error
    return _of_files(tuple(str(row["name"]) for row in categories), truths, files)


def _coco_truths(rows: list[Any], places: dict[Any, int]) -> Truths:
    corners = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Truths(
        corners,
        np.array([places[row["category_id"]] for row in rows], np.int64),
        np.array([row.get("iscrowd", 0) for row in rows], bool),
        np.array([row.get("area", row["bbox"][2] * row["bbox"][3]) for row in rows], np.float64),
    )


def load_voc(folder: str | Path, labels: Sequence[str] | None = None) -> DetectionData:
    """Reads a folder in Pascal VOC's format: XML files, and the images that they name.

    XML files are in `Annotations` and images in `JPEGImages`, or all in the folder itself. Objects that are marked as
    difficult count as crowds, so that neither training nor figures take them into account.
    Pixels are counted from 1 there, with both ends included, and from 0 here.

    Args:
        folder: The folder.
        labels: Names of the classes, in the order of their numbers. None sorts those that occur.

    Raises:
        InvalidArgumentError: The folder doesn't exist.
        DataError: There are no XML files, one is not in this format or has another class, or an image is missing.
    """
    root = existing_folder(folder, "folder")
    described = sorted((root / "Annotations" if (root / "Annotations").is_dir() else root).glob("*.xml"))
    if not described:
        raise DataError(f"A VOC folder must have XML files. Received: {root}, which has none.")
    pictures = root / "JPEGImages" if (root / "JPEGImages").is_dir() else root
    read = [_voc_objects(file) for file in described]
    names = sorted({name for _, objects in read for name, _, _ in objects}) if labels is None else list(labels)
    truths = []
    for file, (_, objects) in zip(described, read, strict=True):
        unknown = {name for name, _, _ in objects} - set(names)
        if unknown:
            raise DataError(f"{file} must only name {', '.join(names)}. Received: {', '.join(sorted(unknown))}.")
        truths.append(
            Truths(
                np.array([box for _, box, _ in objects], np.float64).reshape(-1, 4),
                np.array([names.index(name) for name, _, _ in objects], np.int64),
                np.array([difficult for _, _, difficult in objects], bool),
            )
        )
    return _of_files(tuple(names), tuple(truths), [pictures / name for name, _ in read])


def _voc_objects(file: Path) -> tuple[str, list[tuple[str, tuple[float, ...], bool]]]:
    """Returns the image's name, and name, box and difficulty of each object."""
    try:
        root = ElementTree.parse(file).getroot()
        objects: list[tuple[str, tuple[float, ...], bool]] = []
        for row in root.iter("object"):
            left, top, right, bottom = (
                float(_text(row, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult = (row.findtext("difficult") or "0").strip() == "1"
            objects.append((_text(row, "name"), (left - 1, top - 1, right, bottom), difficult))
        return _text(root, "filename"), objects
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file} is not a VOC annotation: {error}.") from error


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"<{element.tag}> lacks {path}")
    return text.strip()


def _of_files(labels: tuple[str, ...], truths: tuple[Truths, ...], files: Sequence[Path]) -> DetectionData:
    """Returns data whose images are files, which must exist."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"Annotated images must exist. Received: {missing[0]} and {len(missing) - 1} more that don't.")
    return DetectionData(labels, truths, lambda place: read_image(files[place]))
