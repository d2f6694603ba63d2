"""Image files: which formats are decoded, and how, in TensorFlow operations.

One table for training, calibration samples and servables; clients and `docs/images.md` repeat it. TensorFlow has a
decoder for each format, but not for every file of it: BMP files with a palette get wrong colors, WebP files with
transparency or an animation and BMP files of 1, 4, 16 and 32 bits are refused, only PNG becomes RGBA, and no
decoder knows the EXIF orientation. `decode` fills these gaps. All functions of tensors run in a graph, so that
servables can use them, and accept any bytes; those beyond the end are read as zeros.
"""

import functools
import math
import re
from collections.abc import Callable

import tensorflow as tf

DECODED = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WebP": (b"RIFF....WEBP",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
}
"""Formats that are decoded, with the first bytes of their files; a dot stands for any byte."""

OTHERS = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "AVIF": (b"....ftypavif", b"....ftypavis"),
    "HEIF": (b"....ftyphei", b"....ftyphev", b"....ftypmif1", b"....ftypmsf1"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "Photoshop": (b"8BPS",),
    "icon": (b"\0\0\1\0",),
    "DDS": (b"DDS ",),
    "OpenEXR": (b"v/1\x01",),
    "PNM": (b"P1\n", b"P2\n", b"P3\n", b"P4\n", b"P5\n", b"P6\n"),
}
"""Formats that are recognized, but not decoded."""

SUFFIXES = frozenset({
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".psd", ".ico", ".dds", ".exr", ".svg", ".tga"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".pcx", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"),
})  # fmt: skip
"""Names of image files end in one of these. Whether a file is decoded depends on its first bytes alone."""

HEAD_BYTES = 16
"""First bytes of a file that tell its format."""

_UNKNOWN = f"Unknown image file format. Files must be one of {', '.join(DECODED)}."
_ORIENTATION_TAG = 0x0112
_EXIF_BYTES = 2**16
_JPEG_HEADERS = 2**17  # bytes to search for the orientation; cameras write it to the first segment (at most 2**16)
_CHUNKS = 2**14  # to search for it in PNG and WebP files, where it may follow the pixels


def image_format(head: bytes) -> str | None:
    """The format of a file, from its first `HEAD_BYTES`: a key of `DECODED` or `OTHERS`, or None."""

    def starts(mark: bytes) -> bool:
        return len(head) >= len(mark) and all(b in (ord("."), a) for a, b in zip(head, mark, strict=False))

    known = {**DECODED, **OTHERS}
    return next((name for name, marks in known.items() if any(starts(mark) for mark in marks)), None)


def decode(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """The pixels (h, w, channels), uint8, of a JPEG, PNG, GIF, BMP or WebP file (a scalar string), turned upright.

    Three channels are the stored colors, whatever their opacity. The fourth is the opacity, 255 in formats without.
    One channel is the luma of the colors (ITU-R BT.601, as in Pillow's "L"). Animations give their first frame.

    Raises:
        tf.errors.InvalidArgumentError: The file is of another format, damaged, or a run-length-encoded BMP.
    """
    image_bytes = tf.convert_to_tensor(image_bytes, tf.string)
    read = 4 if channels == 4 else 3
    # JPEG alone within the graph: it is the commonest, and a call takes a while too.
    branches = {
        "GIF": lambda: _apart(_gif, read)(image_bytes),
        "JPEG": lambda: _jpeg(image_bytes, read),
        "PNG": lambda: _apart(_png, read)(image_bytes),
        "BMP": lambda: _apart(_bmp, read)(image_bytes),
        "WebP": lambda: _apart(_webp, read)(image_bytes),
    }
    marks = [DECODED[name][0].ljust(HEAD_BYTES, b".") for name in branches]
    heads = tf.constant([list(mark) for mark in marks], tf.uint8)
    is_any = tf.constant([[byte == ord(".") for byte in mark] for mark in marks])
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=HEAD_BYTES)
    matches = tf.reduce_all(is_any | (head == heads), axis=1)
    first = tf.argmax(tf.cast(matches, tf.int32), output_type=tf.int32)  # that of GIF if none does
    pixels = tf.ensure_shape(tf.switch_case(first, list(branches.values())), (None, None, read))
    if channels == 1:
        luma = tf.reduce_sum(tf.cast(pixels, tf.float32) * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
        pixels = tf.cast(tf.round(luma), tf.uint8)
    return pixels


def _apart(function: Callable[..., tf.Tensor], *arguments: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Function (file, *arguments) -> tensor as one of (file), which graphs call.

    A graph passes one by one through the operations of branches that aren't taken. For hundreds of them that takes
    longer than decoding a small image, and so does optimizing them when the graph is first run.
    """
    if tf.executing_eagerly():
        return lambda image_bytes: function(image_bytes, *arguments)
    return _graph(function, *arguments)


@functools.cache
def _graph(function: Callable[..., tf.Tensor], *arguments: int) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(
        input_signature=[tf.TensorSpec((), tf.string)], autograph=False, experimental_attributes={"_noinline": True}
    )
    def called(image_bytes: tf.Tensor) -> tf.Tensor:
        return function(image_bytes, *arguments)

    return called


def failure(error: tf.errors.OpError) -> str:
    """TensorFlow's message, without names of nodes and the lines of code that built them."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]|\[\[.*?\]\]", "", error.message)
    text = text.strip().rpartition("\n\n")[2].rpartition("<stack traces unavailable>")[2].strip()
    text = re.sub(
        r"^\d+ root error\(s\) found\.\s*\(0\)\s*(?:[A-Z_]+:\s*)?(.*?)\s*\(1\).*$", r"\1", text, flags=re.DOTALL
    )
    text = re.sub(r"^assertion failed: \[(.*)\]$", r"\1", text)  # in a graph; eagerly:
    return re.sub(r"^Expected '.*' to be true. Summarized data: b?(['\"])(.*)\1$", r"\2", text, flags=re.DOTALL)


def image_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width in pixels, int64 (2,), from the header of a JPEG, PNG, GIF, BMP or WebP file (a scalar string).

    Zeros for other files. A damaged JPEG header raises `tf.errors.InvalidArgumentError`.
    """
    head = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=32), tf.int64)
    bits = _little(head, 21, 4)  # VP8L: 14 bits of width - 1, then 14 of height - 1
    bmp_height, bmp_width = _bmp_size(head)
    sizes = [
        (_matches(head, b"\x89PNG"), (_big(head[20:24]), _big(head[16:20]))),
        (_matches(head, b"GIF8"), (_little(head, 8, 2), _little(head, 6, 2))),
        (_matches(head, b"BM"), (tf.abs(bmp_height), bmp_width)),
        (_matches(head, b"............VP8 "), (_little(head, 28, 2) % 2**14, _little(head, 26, 2) % 2**14)),
        (_matches(head, b"............VP8L"), (bits // 2**14 % 2**14 + 1, bits % 2**14 + 1)),
        (_matches(head, b"............VP8X"), (_little(head, 27, 3) + 1, _little(head, 24, 3) + 1)),
    ]
    size = tf.zeros((2,), tf.int64)
    for matches, found in sizes:
        size = tf.where(matches, tf.stack(found), size)
    is_jpeg = _matches(head, b"\xff\xd8\xff")
    return tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(image_bytes, output_type=tf.int64)[:2], lambda: size)


def _matches(head: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Whether bytes (n,) start with `mark`, in which a dot stands for any byte."""
    places = [place for place, byte in enumerate(mark) if byte != ord(".")]
    return tf.reduce_all(tf.gather(head, places) == tf.constant([mark[place] for place in places], head.dtype))


def _little(head: tf.Tensor, offset: int, count: int) -> tf.Tensor:
    """A number of `count` bytes in a file's first bytes, int64, the lowest byte first."""
    return _big(head[offset : offset + count][::-1])


def _big(digits: tf.Tensor) -> tf.Tensor:
    """The number that bytes (..., n) are, int64, the highest byte first."""
    return tf.reduce_sum(tf.cast(digits, tf.int64) * [256**i for i in reversed(range(digits.shape[-1]))], axis=-1)


def _part(image_bytes: tf.Tensor, start: tf.Tensor, count: int) -> tf.Tensor:
    """`count` bytes of a file from an offset, uint8."""
    start = tf.clip_by_value(start, 0, tf.strings.length(image_bytes))
    return tf.io.decode_raw(tf.strings.substr(image_bytes, start, count), tf.uint8, fixed_length=count)


def _with_opacity(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB as it is, or as RGBA that is opaque."""
    return tf.pad(pixels, [(0, 0), (0, 0), (0, channels - 3)], constant_values=255)


def _jpeg(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB or RGBA of a JPEG file, upright."""
    pixels = _with_opacity(tf.io.decode_jpeg(image_bytes, channels=3), channels)
    headers = tf.strings.substr(image_bytes, 0, _JPEG_HEADERS + 16)
    return _upright(pixels, image_bytes, headers, r"Exif\x00\x00")


def _gif(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB or RGBA of a GIF file."""
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=HEAD_BYTES)
    is_gif = tf.reduce_any(tf.stack([_matches(head, mark) for mark in DECODED["GIF"]]))
    known = tf.debugging.Assert(is_gif, [_UNKNOWN])  # TensorFlow could read more
    with tf.control_dependencies([known]):
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return _with_opacity(image, channels)


def _png(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB or RGBA of a PNG file, upright."""
    pixels = tf.io.decode_png(image_bytes, channels=channels)
    if channels == 4:
        # TensorFlow's opacity is the largest value of the file's bit depth, without scaling it to 8 bits.
        narrow = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=25)[24] < 8

        def fills() -> tf.Tensor:
            return tf.equal(_find_chunk(image_bytes, b"tRNS", 8, webp=False), tf.strings.length(image_bytes))

        filled = tf.cond(narrow, fills, lambda: tf.constant(False))
        pixels = tf.cond(filled, lambda: _with_opacity(pixels[..., :3], 4), lambda: pixels)
    return _upright(pixels, image_bytes, image_bytes, "eXIf")


def _webp(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB or RGBA of a WebP file, or of the first frame of an animated one, upright."""
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=21)
    animated = _matches(head[12:], b"VP8X") & (head[20] // 2 % 2 > 0)

    def still(file: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_webp(file, channels=0)[0]
        return tf.pad(pixels, [(0, 0), (0, 0), (0, 4 - tf.shape(pixels)[-1])], constant_values=255)

    def first_frame() -> tf.Tensor:
        # Not by TensorFlow, which decodes all frames, of which a small file can have thousands, and whose code writes
        # beyond the end of its memory if an animation is opaque (2.21).
        file, place = _first_frame(image_bytes)
        size, canvas = image_size(file), image_size(image_bytes)
        fits = tf.reduce_all((size > 0) & (place + size <= canvas))
        with tf.control_dependencies([tf.debugging.Assert(fits, ["A WebP file's frames must be within its size."])]):
            pixels = still(tf.identity(file))
        return tf.pad(pixels, tf.concat([tf.stack([place, canvas - place - size], axis=1), [[0, 0]]], axis=0))

    pixels = tf.cond(animated, first_frame, lambda: still(image_bytes))
    return _upright(pixels[..., :channels], image_bytes, image_bytes, "EXIF")


def _first_frame(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """An animated WebP file's first frame as a file of its own, and its place: the first row and column, int64.

    Source: WebP Container Specification (RFC 9649), sections 2.7.1.1 and 2.7.1.2.
    """
    length = tf.strings.length(image_bytes)
    start = _find_chunk(image_bytes, b"ANMF", 12, webp=True)
    head = _part(image_bytes, start, 24)
    size = tf.cast(tf.minimum(_little(head, 4, 4), 2**30), tf.int32)
    chunks = tf.strings.substr(image_bytes, tf.minimum(start + 24, length), tf.maximum(size - 16, 0))
    sides = tf.strings.substr(image_bytes, tf.minimum(start + 14, length), 6)
    transparent = tf.strings.substr(chunks, 0, 4) == b"ALPH"  # needs a header that announces it
    body = tf.cond(transparent, lambda: tf.strings.join([b"VP8X\x0a\0\0\0\x10\0\0\0", sides, chunks]), lambda: chunks)
    digits = (tf.strings.length(body) + 4) // [1, 2**8, 2**16, 2**24] % 256
    count = tf.strings.reduce_join(tf.gather([bytes([value]) for value in range(256)], digits))
    place = tf.stack([_little(head, 11, 3), _little(head, 8, 3)]) * 2
    return tf.strings.join([b"RIFF", count, b"WEBP", body]), place


def _bmp_size(head: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height, negative if the rows run downwards, and width, from the first 26 bytes of a BMP file."""
    height, width = _little(head, 22, 4), _little(head, 18, 4)
    height = tf.where(height < 2**31, height, height - 2**32)
    is_core = _little(head, 14, 4) == 12  # OS/2: numbers of two bytes
    return tf.where(is_core, _little(head, 20, 2), height), tf.where(is_core, _little(head, 18, 2), width)


def _bmp(image_bytes: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB or RGBA of a BMP file that isn't run-length encoded.

    Source: BITMAPINFOHEADER to BITMAPV5HEADER and BITMAPCOREHEADER of the Windows GDI. Opacity counts where the header
    has a mask for it. Fields of fewer than 8 bits are scaled and rounded down, as in Pillow.
    """
    head = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=70), tf.int64)
    signed_height, width = _bmp_size(head)
    start, header, height = _little(head, 10, 4), _little(head, 14, 4), tf.abs(signed_height)
    is_core = header == 12
    bits = tf.where(is_core, _little(head, 24, 2), _little(head, 28, 2))
    compression = tf.where(is_core, tf.zeros((), tf.int64), _little(head, 30, 4))
    known = tf.reduce_any(bits == [1, 2, 4, 8, 16, 24, 32]) & tf.reduce_any(compression == [0, 3, 6])
    known = tf.debugging.Assert(known & (width > 0), ["A BMP file must be uncompressed, of 1 to 32 bits."])
    with tf.control_dependencies([known]):
        stride = (width * bits + 31) // 32 * 4
    available = tf.strings.length(image_bytes)
    complete = height <= (tf.cast(available, tf.int64) - start) // stride
    with tf.control_dependencies([tf.debugging.Assert(complete, ["A BMP file must have all of its rows."])]):
        rows = tf.io.decode_raw(tf.strings.substr(image_bytes, start, height * stride), tf.uint8)
    rows = tf.reshape(rows, tf.stack([height, stride]))

    def turned(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cond(signed_height > 0, lambda: tf.reverse(pixels, [0]), lambda: pixels)

    def by_palette() -> tf.Tensor:
        entry = tf.where(is_core, 3, 4)
        begin = tf.minimum(tf.cast(14 + header, tf.int32), available)
        colors = tf.io.decode_raw(tf.strings.substr(image_bytes, begin, 256 * entry), tf.uint8, fixed_length=4 * 256)
        colors = tf.reshape(colors[: 256 * entry], [256, entry])[:, 2::-1]
        shifts = tf.range(8 - bits, -1, -bits)  # the first pixel is in the highest bits
        shifted = tf.bitwise.right_shift(rows[..., None], tf.cast(shifts, tf.uint8))
        indices = tf.cast(shifted, tf.int32) % tf.cast(2**bits, tf.int32)
        return _with_opacity(tf.gather(colors, tf.reshape(indices, tf.stack([height, -1]))[:, :width]), 4)

    def by_masks() -> tf.Tensor:
        pixels = tf.reshape(rows[:, : width * bits // 8], tf.stack([height, width, bits // 8]))
        powers = tf.cast(256 ** tf.range(bits // 8), tf.int32)
        values = tf.reduce_sum(tf.cast(pixels, tf.int32) * powers, axis=-1, keepdims=True)
        lowest = tf.maximum(tf.bitwise.bitwise_and(masks, -masks), 1)
        largest = tf.cast(masks // lowest, tf.int32)
        shifts = tf.cast(tf.math.log(tf.cast(lowest, tf.float64)) / math.log(2) + 0.5, tf.uint32)
        shifted = tf.bitwise.right_shift(tf.bitcast(values, tf.uint32), shifts)
        fields = tf.cast(tf.bitwise.bitwise_and(shifted, tf.cast(largest, tf.uint32)), tf.int32)
        return tf.cast(tf.where(largest > 0, fields * 255 // tf.maximum(largest, 1), [0, 0, 0, 255]), tf.uint8)

    def whole_bytes() -> tf.Tensor:  # by TensorFlow, which is several times faster
        return tf.cond(
            bits == 24,
            lambda: _with_opacity(tf.io.decode_bmp(image_bytes, channels=3), 4),
            lambda: tf.maximum(tf.io.decode_bmp(image_bytes, channels=4), tf.cast(opaque, tf.uint8)),
        )

    given = tf.stack([_little(head, place, 4) for place in (54, 58, 62, 66)])
    given *= tf.cast(tf.stack([True, True, True, (header >= 56) | (compression == 6)]), tf.int64)
    of_bits = tf.where(bits == 16, [0x7C00, 0x3E0, 0x1F, 0], [0xFF0000, 0xFF00, 0xFF, 0])
    masks = tf.where(compression == 0, tf.cast(of_bits, tf.int64), given)
    opaque = tf.where(masks[3] > 0, 0, [0, 0, 0, 255])
    usual = (bits >= 24) & ~is_core & tf.reduce_all(masks[:3] == [0xFF0000, 0xFF00, 0xFF])
    usual &= tf.reduce_any(masks[3] == [0, 0xFF000000])
    return tf.cond(usual, whole_bytes, lambda: turned(tf.cond(bits <= 8, by_palette, by_masks)))[..., :channels]


def orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP file (a scalar string): how the camera was held; int32, 1..8.

    It is 1 (upright) for files without a valid orientation and for other formats. Source: tag Orientation (0x0112) of
    the first directory, Exif 2.32 (CIPA DC-008), section 4.6.4, in the APP1 segment of section 4.7, in PNG's chunk
    eXIf, or in WebP's chunk EXIF.
    """
    head = tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=HEAD_BYTES)
    start = tf.case(
        [
            (_matches(head, b"\xff\xd8"), lambda: _find_jpeg_exif(image_bytes)),
            (_matches(head, b"\x89PNG"), lambda: _find_chunk(image_bytes, b"eXIf", 8, webp=False) + 8),
            (_matches(head, b"RIFF....WEBP"), lambda: _find_chunk(image_bytes, b"EXIF", 12, webp=True) + 8),
        ],
        default=lambda: tf.strings.length(image_bytes),
    )
    start += tf.where(_matches(_part(image_bytes, start, 6), b"Exif\0\0"), 6, 0)  # writers of WebP differ
    return _exif_orientation(image_bytes, start)


def _find_chunk(image_bytes: tf.Tensor, name: bytes, first: int, *, webp: bool) -> tf.Tensor:
    """Offset of a PNG or WebP file's first chunk of that name, or the file's length; chunks begin at `first`."""
    length = tf.strings.length(image_bytes)

    def goes_on(place: tf.Tensor) -> tf.Tensor:
        found = _part(image_bytes, place + (0 if webp else 4), 4)
        return (place < length) & tf.reduce_any(found != list(name))

    def following(place: tf.Tensor) -> list[tf.Tensor]:
        digits = _part(image_bytes, place + (4 if webp else 0), 4)
        size = _big(digits[::-1] if webp else digits)
        size = 8 + size + size % 2 if webp else 12 + size  # padded to an even length; followed by a checksum
        return [tf.cast(tf.minimum(tf.cast(place, tf.int64) + size, 2**31 - 64), tf.int32)]

    place = tf.while_loop(goes_on, following, [tf.constant(first)], maximum_iterations=_CHUNKS)[0]
    return tf.where(goes_on(place), length, place)


def _find_jpeg_exif(image_bytes: tf.Tensor) -> tf.Tensor:
    """Offset of a JPEG file's TIFF structure, or one beyond the end."""
    length = tf.strings.length(image_bytes)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        return _matches(_part(image_bytes, segment, 10), b"\xff\xe1..Exif\0\0")

    def goes_on(segment: tf.Tensor) -> tf.Tensor:
        mark = _part(image_bytes, segment, 2)
        more = (mark[0] == 0xFF) & (mark[1] != 0xDA)  # the start of scan is followed by the pixels
        return more & (segment < _JPEG_HEADERS) & ~is_exif(segment)

    def following(segment: tf.Tensor) -> list[tf.Tensor]:
        mark = _part(image_bytes, segment, 4)
        filler = mark[1] == 0xFF  # any number of fill bytes may precede a marker
        return [segment + tf.where(filler, 1, 2 + tf.cast(_big(mark[2:]), tf.int32))]

    segment = tf.while_loop(goes_on, following, [tf.constant(2)])[0]
    return tf.where(is_exif(segment), segment + 10, length)


def _exif_orientation(image_bytes: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Reads the tag from a TIFF structure that begins at `start`."""
    data = _part(image_bytes, start, _EXIF_BYTES)
    little = data[0] == ord("I")  # "II" (Intel) or "MM" (Motorola)

    def number(digits: tf.Tensor) -> tf.Tensor:
        """Decodes bytes (..., n) in the file's byte order; limited to `_EXIF_BYTES`."""
        return tf.cast(tf.minimum(_big(tf.where(little, tf.reverse(digits, [-1]), digits)), _EXIF_BYTES), tf.int32)

    directory = tf.minimum(number(data[4:8]), _EXIF_BYTES - 2)
    count = tf.minimum(number(tf.slice(data, [directory], [2])), (_EXIF_BYTES - directory - 2) // 12)
    table = tf.reshape(data[directory + 2 : directory + 2 + 12 * count], (count, 12))
    tags, values = number(table[:, 0:2]), number(table[:, 8:10])
    value = tf.reduce_max(tf.concat([tf.where(tags == _ORIENTATION_TAG, values, 1), [1]], axis=0))
    return tf.where(value <= 8, value, 1)


def _upright(pixels: tf.Tensor, image_bytes: tf.Tensor, searched: tf.Tensor, mark: str) -> tf.Tensor:
    """`upright` by a file's `orientation`, for which the file is only walked if `mark` is in the bytes `searched`."""
    may_be = tf.strings.regex_full_match(searched, rf"(?s)\C*{mark}\C*")
    return tf.cond(may_be, lambda: upright(pixels, _apart(orientation)(image_bytes)), lambda: pixels)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors pixels (h, w, C) by their EXIF orientation (scalar, 1..8); 5 to 8 swap height and width."""
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    mirrored = tf.reduce_any(orientation == [[3, 4, 7, 8], [2, 3, 6, 7]], axis=1)  # top to bottom, left to right
    return tf.reverse(turned, tf.boolean_mask([0, 1], mirrored))
