"""TFRecord files, from which warmup requests are read and to which the request log is written.

A record consists of its length (8 bytes), the checksum of the length, the data, and the checksum of the data, all
little-endian.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc

from keraslight_serving.server.base.errors import StatusError


def read_records(file: Path) -> Iterator[bytes]:
    """The data of each record.

    Raises:
        StatusError: DATA_LOSS, a checksum is wrong or the file ends in the middle of a record.
    """
    content = file.read_bytes()
    position = 0
    while position < len(content):
        length, checksum = content[position : position + 8], content[position + 8 : position + 12]
        # The length is only used once its checksum is verified.
        intact = len(length) == 8 and _masked_crc(length) == checksum
        end = position + 12 + (struct.unpack("<Q", length)[0] if intact else 0)
        data = content[position + 12 : end]
        if not intact or _masked_crc(data) != content[end : end + 4]:
            text = f"corrupted record at {position}. Please verify your warmup data is in TFRecord format."
            raise StatusError(grpc.StatusCode.DATA_LOSS, text)
        yield data
        position = end + 4


def to_record(data: bytes) -> bytes:
    """The data as a record, ready to be appended to a file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted, so that data which contains checksums causes no collisions."""
    crc: int = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
