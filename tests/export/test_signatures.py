"""What the string signatures do with files of all kinds, good and bad; run as TensorFlow Serving runs them."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keraslight.export import save_servable

LIMIT = 5_000


@pytest.fixture(scope="module")
def call(tmp_path_factory, build_net):
    """A function that runs a signature in a TF1 session: name, input -> outputs by alias."""
    version = save_servable(build_net(), tmp_path_factory.mktemp("m") / "m", labels=["a", "b", "c"], max_pixels=LIMIT)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(version)).signature_def

    def run(name, value):
        (tensor,) = signatures[name].inputs.values()
        outputs = {alias: info.name for alias, info in signatures[name].outputs.items()}
        return session.run(outputs, {tensor.name: value})

    yield run
    session.close()


def picture(height=16, width=24, seed=0):
    """Flat blocks of 8x8 pixels, which every codec keeps."""
    colours = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(colours.repeat(8, axis=0).repeat(8, axis=1))


def file(image, kind="PNG", **arguments):
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def example(**features):
    lists = {
        f"image/{name}": tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_every_kind_of_file(call):
    image = picture()
    files = [
        file(image),
        file(image, "BMP"),
        file(image, "WEBP", lossless=True),
        file(image, "JPEG", quality=100, subsampling=0),
        file(image.convert("RGBA")),
        file(image.quantize(), "GIF"),
    ]
    answers = call("encoded", files)["probabilities"]
    np.testing.assert_allclose(answers, answers[:1].repeat(len(files), axis=0), atol=5e-3)
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


def test_decoding_alone_gives_what_the_network_takes(call):
    files = [file(picture(seed=seed)) for seed in range(3)]
    images = call("decode", files)["images"]
    assert (images.dtype, images.shape) == (np.float32, (3, 8, 12, 3))
    assert images.max() > 1, "raw pixels"
    np.testing.assert_array_equal(call("decode_examples", [example(encoded=data) for data in files])["images"], images)
    wanted = call("encoded", files)["probabilities"]
    np.testing.assert_allclose(call("serving_default", images)["probabilities"], wanted, atol=1e-6)


def test_a_photograph_taken_sideways_is_turned(call):
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    sideways = image.transpose(Image.Transpose.ROTATE_90)
    turned, upright, ignored = call(
        "encoded",
        [
            file(sideways, "JPEG", exif=exif, quality=100, subsampling=0),
            file(image, "JPEG", quality=100, subsampling=0),
            file(sideways, "JPEG", quality=100, subsampling=0),
        ],
    )["probabilities"]
    np.testing.assert_allclose(turned, upright, atol=1e-4)
    assert np.abs(ignored - upright).max() > 1e-3


@pytest.mark.parametrize(
    "bad", [b"", b"no image", file(picture())[:60], file(picture(), "JPEG")[:200], b"\xff\xd8\xff"]
)
def test_one_bad_file_is_named_by_its_index(call, bad):
    good = file(picture())
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        call("encoded", [good, good, bad, good])
    assert "`image_bytes` must each be a JPEG, PNG, WebP, BMP or GIF file that can be decoded" in error.value.message
    assert "Received: others at index] [2]" in error.value.message
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Received: others at index\] \[0 2\]"):
        call("encoded", [bad, good, bad])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Received: others at index\] \[1\]"):
        call("classify", [example(encoded=good), example(encoded=bad)])


def test_larger_images_than_allowed_are_refused_before_they_are_decoded(call):
    good, large = file(picture()), file(Image.new("RGB", (100, 51)), "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        call("encoded", [good, large])
    assert f"`image_bytes` must be images of at most {LIMIT} pixels. Received: larger ones at index] [1]" in (
        error.value.message
    )
    assert len(call("encoded", [file(Image.new("RGB", (100, 50)), "BMP")])["classes"]) == 1

    # Headers that claim 60,000 x 60,000 pixels (10 GB) and more than an int64 can count, before a few bytes.
    for side in (60_000, 2**32 - 1):
        bomb = bytearray(good)
        bomb[16:24] = side.to_bytes(4) * 2
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"larger ones at index\] \[0\]"):
            call("classify", [example(encoded=bytes(bomb))])


def test_examples_hold_a_file_or_pixels(call):
    image = picture(8, 16).resize((12, 8), Image.Resampling.NEAREST)
    pixels = np.asarray(image)
    answers = call("classify", [example(encoded=file(image)), example(pixels=pixels.tobytes())])
    np.testing.assert_array_equal(answers["scores"][0], answers["scores"][1])
    np.testing.assert_array_equal(answers["classes"][0], answers["classes"][1])
    bad = [example(), example(pixels=pixels.tobytes()[1:]), example(encoded=file(image), pixels=pixels.tobytes())]
    for one in bad:
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            call("classify", [example(encoded=file(image)), one])
        rule = "a JPEG, PNG, WebP, BMP or GIF file in image/encoded or 288 bytes in image/pixels that can be decoded"
        assert f"`inputs` must each be {rule}. Received: others at index] [1]" in error.value.message


def test_other_dtypes_have_their_own_signature(call):
    pixels = np.asarray(picture(8, 16).resize((12, 8)))[None]
    np.testing.assert_array_equal(
        call("serving_uint8", pixels)["logits"], call("serving_default", pixels.astype(np.float32))["logits"]
    )
