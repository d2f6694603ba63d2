"""Every kind of image file gives the same pixels in training, samples, servables and clients, and Pillow's."""

import io
import logging
import pathlib
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.client import InvalidInput
from keraslight_serving.client._arrays import stack
from keraslight_serving.client._images import prepare
from keraslight_serving.client._model import PixelInput
from PIL import Image, ImageOps

from keraslight._image_files import DECODED, OTHERS, decode, image_format, image_size, orientation
from keraslight.errors import DataError
from keraslight.export import save_servable
from keraslight.preprocessing import Preprocessing
from keraslight.training import load_directory, load_images, load_test

SIDE = 16
SPEC = Preprocessing((SIDE, SIDE), interpolation="nearest", mean=(0.5,) * 3, std=(0.5,) * 3)
RANDOM = np.random.default_rng(0)
# Whole 8x8 blocks of one color: all decoders of JPEG and lossy WebP nearly agree on those.
BLOCKS = Image.fromarray(RANDOM.integers(0, 256, (2, 2, 3), dtype=np.uint8)).resize(
    (SIDE, SIDE), Image.Resampling.NEAREST
)
NOISE = Image.fromarray(RANDOM.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
CLEAR = NOISE.copy()
CLEAR.putalpha(Image.fromarray(RANDOM.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)))
PALETTE = NOISE.convert("P", palette=Image.Palette.ADAPTIVE, colors=13)
WIDE = Image.fromarray(RANDOM.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16))


def file(image, kind, **arguments):
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def turned(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def bmp(bits, colors=0, masks=(), core=False, down=False):
    """A BMP file as Pillow doesn't write it."""
    header = struct.pack("<IHHHH", 12, SIDE, SIDE, 1, bits)
    if not core:
        height = -SIDE if down else SIDE
        header = struct.pack("<IiiHHIIiiII", 40, SIDE, height, 1, bits, 3 if masks else 0, 0, 0, 0, colors, 0)
    header += struct.pack(f"<{len(masks)}I", *masks)
    colors = RANDOM.bytes(colors * (3 if core else 4))
    start = 14 + len(header) + len(colors)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + header + colors + RANDOM.bytes(SIDE * SIDE * bits // 8)


FILES = {
    "jpeg": file(BLOCKS, "JPEG", quality=100, subsampling=0),
    "jpeg gray": file(BLOCKS.convert("L"), "JPEG", quality=100),
    "jpeg cmyk": file(BLOCKS.convert("CMYK"), "JPEG", quality=100, subsampling=0),
    "jpeg progressive": file(BLOCKS, "JPEG", quality=100, subsampling=0, progressive=True),
    "jpeg turned": file(BLOCKS, "JPEG", quality=100, subsampling=0, exif=turned(6)),
    "png": file(NOISE, "PNG"),
    "png gray": file(NOISE.convert("L"), "PNG"),
    "png 1 bit": file(NOISE.convert("1"), "PNG"),
    "png palette of 4 bits": file(PALETTE, "PNG", bits=4),
    "png palette of 2 bits": file(NOISE.quantize(4), "PNG", bits=2),
    "png palette with a transparent color": file(PALETTE, "PNG", transparency=3),
    "png rgba": file(CLEAR, "PNG"),
    "png gray and opacity": file(CLEAR.convert("LA"), "PNG"),
    "png turned": file(NOISE, "PNG", exif=turned(5)),
    "webp": file(NOISE, "WEBP", lossless=True),
    "webp lossy": file(BLOCKS, "WEBP", quality=100),
    "webp opacity": file(CLEAR, "WEBP", lossless=True, exact=True),
    "webp opacity, lossy": file(CLEAR, "WEBP"),
    "webp turned": file(NOISE, "WEBP", lossless=True, exif=turned(8)),
    "webp turned, transparent": file(CLEAR, "WEBP", lossless=True, exact=True, exif=turned(3)),
    "webp animated": file(NOISE, "WEBP", lossless=True, save_all=True, append_images=[PALETTE.convert("RGB")] * 3),
    "webp animated, transparent": file(CLEAR, "WEBP", save_all=True, append_images=[NOISE]),
    "webp animated, transparent, lossless": file(CLEAR, "WEBP", lossless=True, save_all=True, append_images=[NOISE]),
    "bmp": file(NOISE, "BMP"),
    "bmp 1 bit": file(NOISE.convert("1"), "BMP"),
    "bmp gray": file(NOISE.convert("L"), "BMP"),
    "bmp palette": file(PALETTE, "BMP"),
    "bmp 32 bits": file(CLEAR, "BMP"),
    "bmp 4 bits": bmp(4, colors=16),
    "bmp 4 bits, downwards": bmp(4, colors=16, down=True),
    "bmp 16 bits": bmp(16),
    "bmp 16 bits with masks": bmp(16, masks=(0xF800, 0x07E0, 0x001F)),
    "bmp 32 bits with masks": bmp(32, masks=(0xFF000000, 0xFF0000, 0xFF00)),
    "bmp os/2 palette": bmp(8, colors=256, core=True),
    "bmp os/2": bmp(24, core=True),
    "gif": file(PALETTE, "GIF"),
    "gif animated": file(PALETTE, "GIF", save_all=True, append_images=[NOISE.quantize(9)]),
}
LOSSY = {"jpeg", "webp lossy"}


def as_pillow(content, mode):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert(mode)).reshape(SIDE, SIDE, -1)


def as_client(content, channels):
    (image,) = prepare([content])
    assert image.error is None
    return stack([image.data], PixelInput("images", "uint8", SIDE, SIDE, channels), 0)[0]


@pytest.mark.parametrize("kind", FILES)
def test_all_kinds_give_the_pixels_of_pillow_and_of_the_client(kind):
    content = FILES[kind]
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        pixels = decode(tf.constant(content), channels).numpy().astype(int)
        tolerance = 3 if kind.startswith("jpeg") or kind in LOSSY else 0
        np.testing.assert_allclose(pixels, as_pillow(content, mode), atol=tolerance)
        np.testing.assert_allclose(pixels, as_client(content, channels), atol=tolerance)
    assert image_size(tf.constant(content)).numpy().tolist() == [SIDE, SIDE]


def test_sixteen_bits_and_transparent_gifs_are_the_same_for_the_client():
    wide, clear = file(WIDE, "PNG"), file(PALETTE, "GIF", transparency=3)
    np.testing.assert_array_equal(decode(wide, 1)[..., 0], np.asarray(WIDE) >> 8)
    gif = Image.open(io.BytesIO(clear))  # whose palette the encoder has sorted
    black = np.asarray(gif) == gif.info["transparency"]
    assert black.any()
    assert (decode(clear, 3).numpy()[black] == 0).all()
    for content in (wide, clear):
        image = Image.open(io.BytesIO(content))
        for channels in (1, 3, 4):
            np.testing.assert_array_equal(as_client(content, channels), decode(content, channels))
        (sent,) = prepare([image])  # as a PIL image, which is sent as a PNG file
        np.testing.assert_array_equal(decode(sent.data, 3), decode(content, 3))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientations_of_png_and_webp(kind, value):
    image = NOISE.crop((0, 0, SIDE, 10))
    content = file(image, kind, exif=turned(value), **({"lossless": True} if kind == "WEBP" else {}))
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    np.testing.assert_array_equal(decode(content, 3), np.asarray(wanted))


def test_an_orientation_after_the_pixels_and_damaged_chunks():
    content = file(NOISE, "PNG", exif=turned(6))
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    moved = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    assert orientation(tf.constant(moved)) == 6
    assert orientation(tf.constant(content[: start + 9])) == 1
    endless = content[:start] + b"\xff\xff\xff\xff" + content[start + 4 :]
    assert 1 <= int(orientation(tf.constant(endless))) <= 8
    webp = bytearray(file(NOISE, "WEBP", lossless=True, exif=turned(7)))
    webp[16:20] = b"\xff\xff\xff\xff"
    assert orientation(tf.constant(bytes(webp))) == 1


def test_an_animation_costs_one_frame():
    frames = file(
        NOISE, "WEBP", lossless=True, save_all=True, append_images=[NOISE.rotate(90 * turns) for turns in (1, 2, 3)]
    )
    second = frames.index(b"ANMF", frames.index(b"ANMF") + 4)
    broken = frames[: second + 8] + b"\xff" * (len(frames) - second - 8)  # whatever comes after it isn't read
    np.testing.assert_array_equal(decode(broken, 3), np.asarray(NOISE))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_first_frame_may_be_smaller_than_the_animation(channels):
    # The encoder crops a frame to what differs from a transparent canvas.
    image = Image.new("RGBA", (SIDE, SIDE))
    image.paste(NOISE.crop((0, 0, 6, 4)), (4, 8))
    frames = bytearray(file(image, "WEBP", lossless=True, save_all=True, append_images=[CLEAR]))
    frame = frames.index(b"ANMF") + 8
    assert frames[frame : frame + 12] == bytes([2, 0, 0, 4, 0, 0, 5, 0, 0, 3, 0, 0])
    np.testing.assert_array_equal(decode(bytes(frames), channels), as_client(bytes(frames), channels))
    frames[frame] = 8  # beyond the right edge
    with pytest.raises(tf.errors.InvalidArgumentError, match="frames must be within"):
        decode(bytes(frames), channels)


def test_damaged_animations_are_refused():
    frames = file(NOISE, "WEBP", lossless=True, save_all=True, append_images=[NOISE.rotate(90)])
    start = frames.index(b"ANMF")
    for broken in (frames[:start], frames[: start + 20], frames[: start + 60], frames.replace(b"VP8L", b"VP9L")):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(broken, 3)


TIFF, TEXT = file(NOISE, "TIFF"), b"BM is no picture"
RLE = bytearray(file(PALETTE, "BMP"))
RLE[30] = 1
BAD = {"tiff": TIFF, "text": TEXT, "rle": bytes(RLE), "cut": FILES["bmp 4 bits"][:-30], "jxl": b"\xff\x0a" + bytes(40)}


@pytest.mark.parametrize("kind", BAD)
def test_other_files_are_refused(kind):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(BAD[kind]), 3)


@pytest.mark.parametrize(
    ("image", "kind", "name"),
    [(NOISE, "TIFF", "TIFF"), (NOISE, "JPEG2000", "JPEG 2000"), (NOISE, "ICO", "icon"), (NOISE, "PPM", "PNM")],
)
def test_formats_that_are_not_decoded_are_known(image, kind, name):
    assert image_format(file(image, kind)[:16]) == name
    assert name in OTHERS
    (refused,) = prepare([file(image, kind)])
    assert isinstance(refused.error, InvalidInput)


def test_decoded_formats_are_known():
    assert {image_format(content[:16]) for content in FILES.values()} == set(DECODED)
    assert image_format(b"") is image_format(b"RIFF1234WAVE") is None


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of every kind of file, with suffixes that say nothing or something else."""
    root = tmp_path_factory.mktemp("photos")
    names = ["a.JPE", "b.jfif", "c", "d.png", "e.tif", "f.dat"]
    for label in ("cat", "dog"):
        (root / label / "more" / "deep").mkdir(parents=True)
        for index, content in enumerate(FILES.values()):
            folder = root / label / ("", "more", "more/deep")[index % 3]
            (folder / f"{index:02}{names[index % len(names)]}").write_bytes(content)
    return root


def test_training_samples_and_servables_see_the_same_pixels(photos, tmp_path):
    data = load_directory(photos, SPEC)
    assert (data.labels, data.skipped, data.ignored) == (("cat", "dog"), 0, ())
    assert len(data.files) == 2 * len(FILES)
    np.testing.assert_array_equal(load_images(photos, SPEC), data.pixels)
    images = keras.Input((SIDE, SIDE, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(images))
    version = save_servable(keras.Model(images, outputs), tmp_path / "net", labels=data.labels, preprocessing=SPEC)
    served = tf.saved_model.load(str(version)).signatures["decode"]
    contents = [pathlib.Path(name).read_bytes() for name in data.files]
    np.testing.assert_array_equal(served(image_bytes=tf.constant(contents))["images"], data.pixels)
    for content in BAD.values():
        with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG, PNG, WebP, BMP or GIF file"):
            served(image_bytes=tf.constant([content]))
    # The client finds the same files, in the same order.
    found = list(prepare(photos))
    assert [item.data for item in found] == [pathlib.Path(name).read_bytes() for name in sorted(data.files)]


def test_all_that_is_skipped_or_ignored_is_named_and_counted(tmp_path, caplog):
    for label in ("cat", "dog", "eel"):
        (tmp_path / label / "within").mkdir(parents=True)
        for name in ("1.png", "2.bmp", "within/3.jpg"):
            (tmp_path / label / name).write_bytes(FILES["png"])
    for name in ("__MACOSX/cat/._1.png", "cat/.ipynb_checkpoints/1.png", ".cache/1.png", "@eaDir/cat/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(FILES["png"])
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (tmp_path / "dog" / "4.tif").write_bytes(TIFF)
    (tmp_path / "eel" / "photo").write_bytes(TIFF)
    (tmp_path / "eel" / "5.heic").write_bytes(b"no image")
    (tmp_path / "eel" / "6.svg").write_bytes(b"")
    (tmp_path / "eel" / "round").symlink_to(tmp_path / "eel")  # never ends
    with caplog.at_level(logging.WARNING, "keraslight.training"):
        data = load_directory(tmp_path, SPEC)
    assert (data.labels, len(data.files), data.skipped) == (("cat", "dog", "eel"), 9, 4)
    ignored = {
        ".cache/",
        "@eaDir/",
        "__MACOSX/",
        "readme.txt",
        "cat/.ipynb_checkpoints/",
        "dog/Thumbs.db",
        "eel/round/",
    }
    assert set(data.ignored) == ignored
    assert "Ignored 7 entries of" in caplog.text
    assert all(name in caplog.text for name in ignored)
    for name in ("dog/4.tif: TIFF files are not supported", "eel/photo: TIFF files", "eel/5.heic: ", "eel/6.svg: "):
        assert f"Skipped {tmp_path / name}" in caplog.text
    assert "Skipped 4 of 13 images" in caplog.text
    client = list(prepare(tmp_path))
    assert len([item for item in client if item.error is None]) == 9
    refused = {item.source.rpartition("/")[2] for item in client if item.error is not None}
    assert refused == {"4.tif", "5.heic", "6.svg"}  # "photo" has neither a suffix nor a known format


def layout(root, names, label_names=("cat", "dog")):
    for name in names:
        for index, label in enumerate(label_names):
            (root / name / label).mkdir(parents=True)
            for number in range(index + 1 + (name == names[0])):
                (root / name / label / f"{number}.png").write_bytes(FILES["png"])


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Training", "Validation"), ("train", "test"), ("train", "valid", "test")]
)
def test_folders_divided_into_parts(tmp_path, names):
    layout(tmp_path, names)
    (tmp_path / "__MACOSX").mkdir()
    data = load_directory(tmp_path, SPEC)
    assert data.labels == ("cat", "dog")
    files = np.array(data.files)
    assert {name.split("/")[-3] for name in files[data.train_indices]} == {names[0]}
    assert {name.split("/")[-3] for name in files[data.validation_indices]} == {names[1]}
    assert data.targets[data.validation_indices].tolist() == [0, 1, 1]
    assert data.ignored == ("__MACOSX/",)  # a third part is kept for tests
    if len(names) == 3:
        assert {name.split("/")[-3] for name in load_test(tmp_path, SPEC).files} == {names[2]}
    with pytest.raises(ValueError, match="is for a folder without images to hold out. Received: 0.5"):
        load_directory(tmp_path, SPEC, validation_split=0.5)


def test_parts_that_do_not_fit(tmp_path):
    layout(tmp_path, ("train", "val"))
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "fox")
    with pytest.raises(DataError, match=r"same class folders.*only train/ has \['dog'\] and only val/ has \['fox'\]"):
        load_directory(tmp_path, SPEC)
    (tmp_path / "val" / "fox").rename(tmp_path / "val" / "dog")
    for image in (tmp_path / "val" / "dog").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"at least one readable image in val/\. Received: 'dog' has 0\."):
        load_directory(tmp_path, SPEC)


def test_a_folder_around_the_classes_is_named(tmp_path):
    layout(tmp_path, ("photos",))
    with pytest.raises(DataError, match=r"with 1, \['photos'\]\. If its folders are the classes, pass .*/photos\."):
        load_directory(tmp_path, SPEC)
