"""Size and EXIF orientation of image files, read with TensorFlow operations.

TensorFlow decodes images, but has no operation for the orientation, and reads only the size of JPEG files. All
functions run in a graph, so that servables can use them, and accept any bytes; those beyond the end are read as zeros.
"""

from collections.abc import Callable

import tensorflow as tf

ORIENTATION_BYTES = 2**17
"""Bytes of a JPEG file to search for its orientation. Cameras write it to the first segment (at most 2**16)."""

_ORIENTATION_TAG = 0x0112


def image_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width in pixels, int64 (2,), from the header of a JPEG, PNG, GIF, BMP or WebP file (a scalar string).

    Zeros for other files. A damaged JPEG header raises `tf.errors.InvalidArgumentError`.
    """
    head = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=32), tf.int64)

    def little(offset: int, count: int) -> tf.Tensor:
        return sum(head[offset + i] * 256**i for i in range(count))

    def big(offset: int, count: int) -> tf.Tensor:
        return sum(head[offset + i] * 256 ** (count - 1 - i) for i in range(count))

    def starts(mark: bytes, offset: int = 0) -> tf.Tensor:
        return tf.reduce_all(head[offset : offset + len(mark)] == tf.constant(list(mark), tf.int64))

    bits = little(21, 4)  # VP8L: 14 bits of width - 1, then 14 of height - 1
    bmp_height = little(22, 4)  # negative (two's complement) if the rows run downwards
    sizes = [
        (starts(b"\x89PNG"), (big(20, 4), big(16, 4))),
        (starts(b"GIF8"), (little(8, 2), little(6, 2))),
        (starts(b"BM"), (tf.minimum(bmp_height, 2**32 - bmp_height), little(18, 4))),
        (starts(b"VP8 ", 12), (little(28, 2) % 2**14, little(26, 2) % 2**14)),
        (starts(b"VP8L", 12), (bits // 2**14 % 2**14 + 1, bits % 2**14 + 1)),
        (starts(b"VP8X", 12), (little(27, 3) + 1, little(24, 3) + 1)),
    ]
    size = tf.zeros((2,), tf.int64)
    for matches, found in sizes:
        size = tf.where(matches, tf.stack(found), size)
    is_jpeg = starts(b"\xff\xd8\xff")
    return tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(image_bytes, output_type=tf.int64)[:2], lambda: size)


def orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file (a scalar string), which records how the camera was held: int32, 1..8.

    It is 1 (upright) for files without a valid orientation and for other formats. Source: tag Orientation (0x0112) of
    the first directory, Exif 2.32 (CIPA DC-008), section 4.6.4, in the APP1 segment of section 4.7.
    """
    return tf.cond(
        tf.strings.substr(image_bytes, 0, 2) == b"\xff\xd8",
        lambda: _jpeg_orientation(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=ORIENTATION_BYTES)),
        lambda: tf.constant(1),
    )


def _jpeg_orientation(data: tf.Tensor) -> tf.Tensor:
    def at(offset: tf.Tensor, count: int) -> tf.Tensor:
        start = tf.clip_by_value(offset, 0, ORIENTATION_BYTES - count)
        return tf.cast(tf.slice(data, [start], [count]), tf.int32)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all(at(segment, 2) == [0xFF, 0xE1]) & tf.reduce_all(at(segment + 4, 6) == list(b"Exif\0\0"))

    def goes_on(segment: tf.Tensor) -> tf.Tensor:
        mark = at(segment, 2)
        more = (mark[0] == 0xFF) & (mark[1] != 0xDA)  # the start of scan is followed by the pixels
        return more & (segment < ORIENTATION_BYTES) & ~is_exif(segment)

    def following(segment: tf.Tensor) -> list[tf.Tensor]:
        mark, length = at(segment, 2), at(segment + 2, 2)
        filler = mark[1] == 0xFF  # any number of fill bytes may precede a marker
        return [segment + tf.where(filler, 1, 2 + length[0] * 256 + length[1])]

    segment = tf.while_loop(goes_on, following, [tf.constant(2)])[0]
    return tf.cond(is_exif(segment), lambda: _exif_orientation(data, at, segment + 10), lambda: tf.constant(1))


def _exif_orientation(data: tf.Tensor, at: Callable[[tf.Tensor, int], tf.Tensor], start: tf.Tensor) -> tf.Tensor:
    """Reads the tag from a TIFF structure that begins at `start`."""
    little = at(start, 1)[0] == ord("I")  # "II" (Intel) or "MM" (Motorola)

    def number(digits: tf.Tensor) -> tf.Tensor:
        """Decodes bytes (..., n) in the file's byte order; limited to ORIENTATION_BYTES."""
        digits = tf.cast(tf.where(little, tf.reverse(digits, [-1]), digits), tf.int64)
        value = tf.reduce_sum(digits * [256**i for i in reversed(range(digits.shape[-1]))], axis=-1)
        return tf.cast(tf.minimum(value, ORIENTATION_BYTES), tf.int32)

    directory = start + number(at(start + 4, 4))
    entries = tf.clip_by_value(number(at(directory, 2)), 0, tf.maximum(ORIENTATION_BYTES - directory - 2, 0) // 12)
    table = tf.cast(tf.reshape(data[directory + 2 : directory + 2 + 12 * entries], (entries, 12)), tf.int32)
    tags, values = number(table[:, 0:2]), number(table[:, 8:10])
    value = tf.reduce_max(tf.concat([tf.where(tags == _ORIENTATION_TAG, values, 1), [1]], axis=0))
    return tf.where(value <= 8, value, 1)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors pixels (h, w, C) by their EXIF orientation (scalar, 1..8); 5 to 8 swap height and width."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    mirrored = tf.reduce_any(orientation == [[3, 4, 7, 8], [2, 3, 6, 7]], axis=1)  # top to bottom, left to right
    return tf.reverse(turned, tf.boolean_mask([0, 1], mirrored))
