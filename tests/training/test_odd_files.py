"""A folder in which 30 % of the files are broken or odd trains on the rest, and says what it left out."""

import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from keraslight.cli.app import app
from keraslight.preprocessing import Preprocessing
from keraslight.training import load_directory

SPEC = Preprocessing(size=(24, 24), mean=(0.5,) * 3, std=(0.5,) * 3)
NOISE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
RED, BLUE = PIL.Image.new("RGB", (24, 24), (255, 0, 0)), PIL.Image.new("RGB", (24, 24), (0, 0, 255))


def content(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def halves(mode="RGB", upper=(255, 0, 0), lower=(0, 0, 255)):
    image = PIL.Image.new(mode, (24, 24), upper)
    image.paste(lower, (0, 12, 24, 24))
    return image


def exif(value):
    tags = PIL.Image.Exif()
    tags[0x0112] = value
    return tags


def palette():
    image = halves().convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=2)
    image.info["transparency"] = image.getpixel((0, 0))  # the upper half is transparent
    return content(image, "PNG", transparency=image.info["transparency"])


UPPER_RED = np.repeat([[[255, 0, 0]], [[0, 0, 255]]], 12, axis=0)  # (24, 1, 3)
GRAY = np.repeat([[200], [40]], 12, axis=0)
ODD = {  # what the documentation says of each kind: the rows of the image that is trained on, each of one color
    "cmyk.jpg": (content(halves().convert("CMYK"), "JPEG", quality=95, subsampling=0), UPPER_RED),
    "16bit.png": (
        content(PIL.Image.fromarray(np.repeat(GRAY.astype(np.uint16) * 256 + 130, 24, axis=1)), "PNG"),
        np.repeat(GRAY[..., None], 3, axis=-1),
    ),
    "palette.png": (palette(), UPPER_RED),  # the stored color, although it is transparent
    "upside_down.jpg": (content(halves(), "JPEG", exif=exif(3), quality=95, subsampling=0), UPPER_RED[::-1]),
    "mirrored.png": (content(halves(), "PNG", exif=exif(4)), UPPER_RED[::-1]),
    "animated.gif": (content(RED, "GIF", save_all=True, append_images=[BLUE]), UPPER_RED[:1]),
    "animated.webp": (content(RED, "WEBP", lossless=True, save_all=True, append_images=[BLUE]), UPPER_RED[:1]),
    "jpeg_called.png": (content(RED, "JPEG", quality=95), UPPER_RED[:1]),
    "png_called.jpg": (content(RED, "PNG"), UPPER_RED[:1]),
}
JPEG, PNG = content(NOISE, "JPEG"), content(NOISE, "PNG")
BROKEN = {
    "empty.jpg": (b"", "The file is empty"),
    "text.png": (b"<html>404 Not Found</html>", "Unknown image file format"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "Invalid JPEG"),
    "no_end.jpg": (JPEG[:-2], "Invalid JPEG"),
    "truncated.png": (PNG[: len(PNG) // 2], "Invalid PNG"),
    "truncated.gif": (content(NOISE, "GIF")[:-40], "Invalid GIF"),
    "truncated.webp": (content(NOISE, "WEBP")[:-40], "WebP"),
    "truncated.bmp": (content(NOISE, "BMP")[:-40], "all of its rows"),
    "tiff_called.jpg": (content(NOISE, "TIFF"), "TIFF files are not supported"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 images of two classes, 18 of which are odd or broken."""
    root = tmp_path_factory.mktemp("photos")
    for label in ("a", "b"):
        (root / label).mkdir()
        for index in range(21):
            shade = 40 * (label == "b") + index
            (root / label / f"{index:02}.png").write_bytes(content(PIL.Image.new("RGB", (24, 24), (shade,) * 3), "PNG"))
    for folder, files in (("a", ODD), ("b", BROKEN)):
        for name, (data, _) in files.items():
            (root / folder / name).write_bytes(data)
    (root / "notes.txt").write_text("mine")
    return root


@pytest.fixture(scope="module")
def loaded(photos):
    return load_directory(photos, SPEC, progress=False)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_trained_on_as_documented(photos, loaded, name):
    pixels = loaded.pixels[loaded.files.index(str(photos / "a" / name))]
    np.testing.assert_allclose(pixels, np.broadcast_to(ODD[name][1], pixels.shape), atol=6)  # JPEG's error


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_reason(loaded, name):
    reasons = dict(loaded.unreadable)
    assert BROKEN[name][1] in reasons[f"b/{name}"]
    assert f"b/{name}" in re.sub(r"\s+", " ", str(loaded))


def test_the_command_trains_on_the_rest_and_counts_the_broken_ones(photos, tmp_path):
    arguments = ["train", "squeezenet_1_1", "--data", photos, "--size", 32, "--epochs", 1, "--to", tmp_path, "--json"]
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["skipped"] == len(BROKEN) == 9
    assert said["train_count"] + said["validation_count"] == 60 - 9
    assert {entry["name"] for entry in said["data"]["skipped"]} == {f"b/{name}" for name in BROKEN}
    assert said["data"]["ignored"] == ["notes.txt"]
    assert [(row["label"], row["train"] + row["validation"]) for row in said["data"]["classes"]] == [
        ("a", 21 + len(ODD)),
        ("b", 21),
    ]
    assert "Skipped 9 images that can't be read:" in done.stderr
    assert "b/truncated.jpg: " in done.stderr
