"""Sizes and orientations that files claim, against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keraslight._image_files import image_size, orientation, upright
from keraslight.preprocessing import Preprocessing

TAG = 0x0112
read_orientation = tf.function(orientation, input_signature=[tf.TensorSpec((), tf.string)])
read_size = tf.function(image_size, input_signature=[tf.TensorSpec((), tf.string)])


def photograph(height=32, width=48):
    """Four corners of four colours, so that no turn or mirror image looks like another.

    Each corner is whole 8x8 blocks of one colour: all decoders of JPEG agree on those.
    """
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 220, 40, 40
    image[: height // 2, width // 2 :] = 40, 220, 40
    image[height // 2 :, : width // 2] = 40, 40, 220
    return Image.fromarray(image)


def jpeg(value=None, image=None, **arguments):
    exif = Image.Exif()
    if value is not None:
        exif[0x010F] = "a maker"  # orientation is seldom the first tag
        exif[TAG] = value
        exif[0x0131] = "software"
    buffer = io.BytesIO()
    (image or photograph()).save(buffer, "JPEG", exif=exif, **arguments)
    return buffer.getvalue()


@pytest.mark.parametrize("value", range(1, 9))
def test_all_orientations_as_pillow_turns_them(value):
    file = jpeg(value, quality=100, subsampling=0)
    theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    assert int(read_orientation(file)) == value
    ours = upright(tf.io.decode_jpeg(file), read_orientation(file))
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2)

    spec = Preprocessing(theirs.shape[:2], interpolation="bilinear")
    np.testing.assert_allclose(spec.decode(tf.constant(file)), theirs, atol=2)


def test_both_byte_orders():
    big = jpeg(6)  # as Pillow writes it
    tag = (TAG).to_bytes(2, "little") + b"\x03\0\x01\0\0\0\x06\0\0\0"
    body = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + tag + b"\0\0\0\0"
    start = big.index(b"Exif\0\0") - 4
    end = start + 2 + int.from_bytes(big[start + 2 : start + 4])
    little = big[:start] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + big[end:]
    assert b"Exif\0\0MM" in big
    for file in (big, little):
        assert Image.open(io.BytesIO(file)).getexif()[TAG] == 6
        assert int(read_orientation(file)) == 6


def test_other_segments_before_it_are_passed_over():
    file = jpeg(8, comment=b"a comment", dpi=(72, 72))
    assert int(read_orientation(file)) == 8
    xmp = b"\xff\xe1" + (2 + 30).to_bytes(2) + b"http://ns.adobe.com/xap/1.0/\0 "  # another APP1
    filled = file[:2] + xmp + b"\xff\xff" + file[2:]  # and filling bytes before the next mark
    assert int(read_orientation(filled)) == 8


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_values_that_mean_nothing(value):
    assert int(read_orientation(jpeg(value))) == 1


def test_files_without_an_orientation():
    png = io.BytesIO()
    photograph().save(png, "PNG")
    for file in (jpeg(), png.getvalue(), b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\xff\xffExif\0\0", b"no image"):
        assert int(read_orientation(file)) == 1


def test_damaged_exif_is_upright_and_no_error():
    rng = np.random.default_rng(0)
    file = jpeg(6)
    start = file.index(b"Exif\0\0") + 6
    for _ in range(200):
        broken = bytearray(file)
        for position in rng.integers(start, start + 60, 3):
            broken[position] = rng.integers(256)
        assert 1 <= int(read_orientation(bytes(broken))) <= 8
    for end in range(0, start + 70, 3):
        assert 1 <= int(read_orientation(file[:end])) <= 8


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("PNG", {}), ("JPEG", {}), ("BMP", {}), ("GIF", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
     ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"})],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (300, 70), (65, 517)])
def test_sizes(kind, arguments, size):
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(buffer, kind, **arguments)
    assert tuple(read_size(buffer.getvalue()).numpy()) == size[::-1]


def test_sizes_of_bmp_files_that_run_downwards_and_of_other_bytes():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "BMP")
    file = bytearray(buffer.getvalue())
    file[22:26] = (-20).to_bytes(4, "little", signed=True)
    assert tuple(read_size(bytes(file)).numpy()) == (20, 30)
    assert tuple(read_size(b"no image").numpy()) == tuple(read_size(b"").numpy()) == (0, 0)
