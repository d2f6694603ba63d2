"""A hundred faces and a hundred other details of photographs, 25x25 pixels, from Labeled Faces in the Wild.

pip install "keraslight[all]" scikit-image
python examples/faces.py faces
keraslight train lenet5_modern --data faces --size 32 --recipe few_photos --to runs/faces
keraslight evaluate runs/faces --data faces --part test
"""

import sys
from pathlib import Path

from PIL import Image
from skimage import data, util

PARTS = {"train": range(60), "val": range(60, 75), "test": range(75, 100)}
"""Part -> the images of each class."""


def prepare(folder: str | Path) -> Path:
    """Writes <folder>/<part>/<class>/<number>.png: 120 images to train on, 30 to choose by and 50 to test."""
    images = util.img_as_ubyte(data.lfw_subset())  # the faces come first
    for name, some in {"face": images[:100], "other": images[100:]}.items():
        for part, numbers in PARTS.items():
            place = Path(folder, part, name)
            place.mkdir(parents=True, exist_ok=True)
            for number in numbers:
                Image.fromarray(some[number]).save(place / f"{number:02}.png")
    return Path(folder)


if __name__ == "__main__":
    print(prepare(sys.argv[1]))
