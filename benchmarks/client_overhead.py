"""Overhead of the client over bare gRPC stubs that send the same bytes to the same server, on this machine.

The server answers Predict with a fixed ranking, so that only the clients are measured. They take turns; medians.
"""

import asyncio
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from keraslight_serving.client import ClassifierClient
from keraslight_serving.client.testing import FakeChannel
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_array, to_tensor
from PIL import Image

CALLS, IMAGES, ROUNDS, WINDOW, BATCH = 300, 500, 7, 4, 8


def serve() -> grpc.Server:
    model = FakeChannel([("cat", 0.9), ("dog", 0.1)])
    predict = grpc.unary_unary_rpc_method_handler(
        lambda request, context: model._predict(request),
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {methods.PREDICT.name: predict}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(methods.PREDICT.service, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    return server


def request_for(images: list[bytes]) -> pb.PredictRequest:
    request = pb.PredictRequest(output_filter=["classes", "scores", "indices"])
    request.model_spec.name, request.model_spec.signature_name = "digits", "encoded"
    request.inputs["image_bytes"].CopyFrom(to_tensor(images))
    return request


def stub_of(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        methods.PREDICT.path,
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )


def rankings(response: pb.PredictResponse) -> list:
    arrays = [to_array(response.outputs[name]).tolist() for name in ("classes", "scores", "indices")]
    return [list(zip(*row, strict=True)) for row in zip(*arrays, strict=True)]


async def stub_loop(address: str, images: list[bytes]) -> list:
    """A hand-written loop: requests of a few images, several in flight."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub, room = stub_of(channel), asyncio.Semaphore(WINDOW)

        async def one(batch: list[bytes]) -> list:
            async with room:
                return rankings(await stub(request_for(batch), timeout=10))

        found = await asyncio.gather(*(one(images[n : n + BATCH]) for n in range(0, len(images), BATCH)))
        return [ranking for batch in found for ranking in batch]


def milliseconds(run: Callable[[], object], count: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(count):
        run()
    return 1000 * (time.perf_counter() - began) / count


def import_ratio() -> float:
    """Time to import the client over that of TensorFlow Serving's messages, each in a fresh process."""
    modules = ("keraslight_serving.client", "tensorflow_serving.apis.predict_pb2")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(5):
        for module in modules:
            times[module].append(milliseconds(lambda m=module: subprocess.run([sys.executable, "-c", f"import {m}"])))
    return statistics.median(times[modules[0]]) / statistics.median(times[modules[1]])


def main() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((224, 224)).save(buffer, "JPEG")
    image = buffer.getvalue()
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        try:
            address = f"127.0.0.1:{int(process.stdout.readline())}"
            with ClassifierClient(address, "digits", batch_size=BATCH, window=WINDOW) as client:
                stub = stub_of(grpc.insecure_channel(address))
                one = request_for([image])
                ways = {"client": lambda: client.classify(image), "stub": lambda: stub(one, timeout=10)}
                costs: dict[str, list[float]] = {way: [] for way in ways}
                for call in range(CALLS * ROUNDS):
                    # Interleaved call by call: a server under continuous load responds faster.
                    for way, run in list(ways.items())[:: 1 if call % 2 else -1]:
                        costs[way].append(milliseconds(run))
                extra = statistics.median(a - b for a, b in zip(costs["client"], costs["stub"], strict=True))
                print(f"one encoded image of {len(image):,} bytes: the client adds {extra:.3f} ms to a bare stub "
                      f"({statistics.median(costs['stub']):.3f} ms)")  # fmt: skip

                images = [image] * IMAGES
                ratios = []
                for _ in range(ROUNDS):
                    ours = milliseconds(lambda: client.classify(images))
                    theirs = milliseconds(lambda: asyncio.run(stub_loop(address, images)))
                    ratios.append(theirs / ours)
                print(f"{IMAGES} JPEGs: throughput of classify / of a hand-written asyncio loop "
                      f"{statistics.median(ratios):.2f}")  # fmt: skip
        finally:
            process.kill()
    print(f"import of the client / of tensorflow_serving.apis.predict_pb2: {import_ratio():.2f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve().wait_for_termination()
    else:
        main()
