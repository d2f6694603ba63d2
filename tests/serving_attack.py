"""For tests that attack a server process: what it has to keep, raw requests, and HTTP/2 by hand."""

import os
import re
import socket
import struct
import time
from pathlib import Path

import grpc
import numpy as np
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor

Code = grpc.StatusCode
IMAGES = np.random.default_rng(1).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
UNPARSABLE = "Exception deserializing request!"
CALLS = (
    methods.PREDICT,
    methods.CLASSIFY,
    methods.REGRESS,
    methods.MULTI_INFERENCE,
    methods.GET_MODEL_METADATA,
    methods.GET_MODEL_STATUS,
)


class Faulty:
    """A server under attack, and what it has to keep."""

    def __init__(self, process, png):
        self.address, self.rest_address, self.log = process.address, process.rest_address, process.log
        self.process = process.process
        self.channel = grpc.insecure_channel(self.address)
        self._png = png
        self.expected = self._answers()
        # Threads come with the first requests: more of them at once than any test has in flight.
        waiting = [connect(self) for _ in range(120)]
        waiting += [connect(self, methods.GET_MODEL_STATUS.path) for _ in range(64)]  # these have a pool of their own
        until = time.monotonic() + 60
        while self.usage()[0] < len(waiting):
            assert time.monotonic() < until, f"{len(waiting)} open calls have made {self.usage()} threads and files"
            time.sleep(0.05)
        assert self._answers() == self.expected
        for connection in waiting:
            connection.close()
        self._answers()
        time.sleep(0.5)
        self.before = self.usage()

    def _answers(self):
        raw = answer(self.channel, methods.PREDICT, predict(IMAGES))
        encoded = answer(self.channel, methods.PREDICT, predict_files([self._png]))
        return [to_array(one.outputs["probabilities"]).tobytes() for one in (raw, encoded)]

    def usage(self):
        """Threads and open files."""
        threads = len(os.listdir(f"/proc/{self.process.pid}/task"))
        return threads, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Resident, in MB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def check(self):
        """Answers right, and has no more threads and files than before."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        assert self._answers() == self.expected
        until = time.monotonic() + 15
        more = (16, 3)  # REST's own threads, and the engine's, come with their requests
        while any(now > was + m for now, was, m in zip(self.usage(), self.before, more, strict=True)):
            assert time.monotonic() < until, f"{self.before} threads and files have become {self.usage()}"
            time.sleep(0.05)


class ClientPool:
    """Raw bytes over a channel, many requests in flight."""

    def __init__(self, channel):
        self._calls = {
            method: channel.unary_unary(method.path, request_serializer=None, response_deserializer=None)
            for method in CALLS
        }

    def send(self, requests, timeout=60):
        """The (code, details) of each (method, message or bytes), in order."""
        window = []
        for method, message in requests:
            data = message if isinstance(message, bytes) else message.SerializeToString()
            window.append(self._calls[method].future(data, timeout=timeout))
            if len(window) == 64:
                yield outcome(window.pop(0))
        yield from map(outcome, window)


def outcome(call):
    error = call.exception()
    return (Code.OK, "") if error is None else (error.code(), error.details())


def answer(channel, method, request, timeout=60):
    return channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)(
        request, timeout=timeout
    )


def predict(images):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny"))
    request.inputs["images"].CopyFrom(to_tensor(images))
    return request


def predict_files(files):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="tiny", signature_name="encoded"))
    request.inputs["image_bytes"].CopyFrom(to_tensor(np.array(files, object)))
    return request


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def opening(path):
    """A connection's first bytes: a POST to `path` on stream 1 (RFC 9113; header names by RFC 7541's static table)."""

    def text(value):
        return bytes([len(value)]) + value

    headers = b"\x83\x86\x04" + text(path.encode()) + b"\x01" + text(b"localhost")
    headers += b"\x0f\x10" + text(b"application/grpc") + b"\x00" + text(b"te") + text(b"trailers")
    return PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers)


def connect(faulty, path=methods.PREDICT.path):
    host, port = faulty.address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(opening(path))
    return connection


def read_frames(connection, until):
    """(type, flags, payload) of stream 1's frames, until one of type `until` ends the stream; pings are answered."""
    buffer, found = b"", []
    while True:
        while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
            kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9])
            payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            if stream == 1:
                found.append((kind, payload))
                if kind == until and flags & END_STREAM:
                    return found
        more = connection.recv(65536)
        assert more, "closed before the answer"
        buffer += more
