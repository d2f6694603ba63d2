"""Photographs of bricks, grass and gravel, cut into tiles: train/, val/ and test/ are from different parts of each.

pip install "keraslight[all]" scikit-image
python examples/textures.py textures
keraslight train lenet5_modern --data textures --size 64 --recipe few_photos --to runs/textures
keraslight evaluate runs/textures --data textures --part test
keraslight make textures --to out --model lenet5_modern --size 64 --weights none
"""

import sys
from pathlib import Path

from PIL import Image
from skimage import data

TILE = 64
PARTS = {"train": (0, 256, 32), "val": (256, 320, 32), "test": (320, 512, 64)}
"""Part -> its first and last column, and the pixels from one tile to the next."""


def prepare(folder: str | Path) -> Path:
    """Writes <folder>/<part>/<class>/<row>_<column>.png: 315 tiles to train on, 45 to choose by and 72 to test."""
    for name, picture in {"brick": data.brick(), "grass": data.grass(), "gravel": data.gravel()}.items():
        for part, (first, end, step) in PARTS.items():
            place = Path(folder, part, name)
            place.mkdir(parents=True, exist_ok=True)
            for row in range(0, len(picture) - TILE + 1, step):
                for column in range(first, end - TILE + 1, step):
                    tile = picture[row : row + TILE, column : column + TILE]
                    Image.fromarray(tile).save(place / f"{row}_{column}.png")
    return Path(folder)


if __name__ == "__main__":
    print(prepare(sys.argv[1]))
