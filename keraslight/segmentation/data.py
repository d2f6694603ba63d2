"""Images with masks: folders of both, and synthetic scenes of digits."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keraslight._scene_files import existing_folder, read_image, read_mask
from keraslight._scenes import LABELS, draw_scene
from keraslight._windows import SceneAugmentation, whole
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.segmentation.losses import IGNORE

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")


class Batch(NamedTuple):
    """Images and their masks for a training step.

    Args:
        images: float32 (B, H, W, C), raw pixels 0..255.
        masks: int32 (B, H, W), the pixels' classes; those of class 255 don't count.
    """

    images: np.ndarray
    masks: np.ndarray


@dataclasses.dataclass(frozen=True)
class SegmentationData(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Images with masks, which are read when they are needed: pairs (uint8 (H, W, 3), uint8 (H, W)).

    Args:
        labels: Names of the classes, of which the background is one.
        length: Number of images.
        read: Function from an image's place to its pixels and its mask.
    """

    labels: tuple[str, ...]
    length: int
    read: Callable[[int], tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            places = range(self.length)[index]
            return dataclasses.replace(self, length=len(places), read=lambda n: self.read(places[n]))
        return self.read(range(self.length)[index])

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

        Args:
            size: Height and width to which images and masks are stretched, in pixels.
            batch_size: Images per batch, at least 1.
            seed: Seed of order and augmentation. None keeps the order.
            epoch: Number of the epoch, at least 0, which changes both.
            augmentation: Random changes, for which a seed is needed.

        Raises:
            InvalidArgumentError: `batch_size` is below 1, or there is an augmentation without a seed.
            DataError: A mask has another size than its image, or a class without a name.
        """
        if batch_size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
        if augmentation is not None and seed is None:
            raise InvalidArgumentError("`augmentation` needs a `seed`. Received: seed=None.")
        order = np.arange(self.length)
        if seed is not None:
            order = np.random.default_rng((seed, epoch)).permutation(self.length)
        for start in range(0, self.length, batch_size):
            images, masks = [], []
            for place in map(int, order[start : start + batch_size]):
                image, mask = self[place]
                self._check(place, image, mask)
                window = whole(image) if augmentation is None else augmentation.draw(image, (seed, epoch, place))
                images.append(window.pixels(image, size))
                masks.append(window.mask(mask, size).astype(np.int32))
            yield Batch(np.stack(images), np.stack(masks))

    def _check(self, place: int, image: np.ndarray, mask: np.ndarray) -> None:
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"A mask must have its image's size. Received: {mask.shape} for image {place} of {image.shape[:2]}."
            )
        unknown = sorted(set(np.unique(mask)) - {IGNORE, *range(len(self.labels))})
        if unknown:
            raise DataError(
                f"Masks must have classes 0..{len(self.labels) - 1} or {IGNORE}. "
                f"Received: {', '.join(map(str, unknown))} in that of image {place}."
            )


def load_scenes(count: int = 1200, *, size: int = 128, seed: int = 0, held_out: bool = False) -> SegmentationData:
    """Returns synthetic scenes of scikit-learn's handwritten digits on its two photographs, with their ink as masks.

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
    return SegmentationData(("background", *LABELS), count, lambda place: (scenes[place].image, scenes[place].mask))


def load_masks(images: str | Path, masks: str | Path, labels: Sequence[str]) -> SegmentationData:
    """Reads a folder of images and one of masks, PNG files of the same names.

    A mask is gray, or has a palette whose indices count; 255 marks pixels that don't.

    Args:
        images: Folder of the images.
        masks: Folder of the masks.
        labels: Names of the classes 0, 1 and so on.

    Raises:
        InvalidArgumentError: A folder doesn't exist.
        DataError: There are no images, or one has no mask.
    """
    folder, other = existing_folder(images, "images"), existing_folder(masks, "masks")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"A folder of images must have some. Received: {folder}.")
    pairs = [(file, other / f"{file.stem}.png") for file in files]
    missing = [file.name for file, mask in pairs if not mask.is_file()]
    if missing:
        raise DataError(f"Each image must have a mask in {other}. Received: {', '.join(missing[:5])} without one.")
    return SegmentationData(
        tuple(labels), len(pairs), lambda place: (read_image(pairs[place][0]), read_mask(pairs[place][1]))
    )
