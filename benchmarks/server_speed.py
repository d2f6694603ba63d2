"""Compares the embedded server with the bare interpreter, its TensorFlow engine, and (with --rivals) other servers.

    python benchmarks/server_speed.py [MODEL ...] [--repeats=5] [--seconds=3] [--rivals=PYTHON]

Random weights, 224x224, `serving_uint8`. All figures are medians of interleaved rounds in one run; a load generator in
its own process sends prepared bytes. Targets, on 2 idle cores:

    one caller: round trip minus the interpreter's invoke        at most 0.8 ms
    16 callers: requests per second / bare interpreters'         at least 0.90
                / the same server with --engine=tensorflow       at least 3   (MobileNetV2, EfficientNetB0)
                / LitServe's and Ray Serve's                     at least 3.5 (MobileNetV2, EfficientNetB0)
    from start to the first response, and memory at that time    at most 2 s, 250 MB (MobileNetV4)

For reference, it also measures the lower bound for servers in Python: one that only responds, and one that only runs
the network (server_floor.py).
"""

import argparse
import base64
import contextlib
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from keraslight_serving.wire import methods, serving_pb2 as pb
from keraslight_serving.wire.tensors import to_tensor

MODELS = ("mobilenet_v4_conv_small", "mobilenet_v2_100", "efficientnet_b0")
SIGNATURE = "serving_uint8"
CALLERS = 16
SETTLING, ASKED = 3, 25  # calls of one caller per round: warm-up, and timed
RIVALS = {"litserve": "LitServe", "ray": "Ray Serve"}
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)


def export(name: str, path: Path) -> None:
    import keras

    import keraslight

    keras.utils.set_random_seed(0)
    model = keraslight.create_model(name, input_shape=(224, 224, 3), preprocessing=True)
    keraslight.export.save_servable(model, path, labels=[f"class {i}" for i in range(1000)])


@contextlib.contextmanager
def serving(path: Path, *flags: str) -> Iterator[tuple[subprocess.Popen, str, float]]:
    """Starts a server in its own process: (process, address, start time)."""
    program = (
        "import sys; from keraslight_serving.server import ModelServer\n"
        f"with ModelServer('model', {str(path)!r}, num_threads=1, {', '.join(flags)}) as server:\n"
        "    print(server.address, flush=True); sys.stdin.read()"
    )
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield process, process.stdout.readline().strip(), began
        process.stdin.close()


@contextlib.contextmanager
def floor(file: Path) -> Iterator[str]:
    """The address of a server that only runs the network."""
    command = [sys.executable, str(Path(__file__).with_name("server_floor.py")), str(file), str(os.cpu_count() or 1)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


def grpc_caller(address: str, path: str = methods.PREDICT.path) -> Callable[[], object]:
    """A function that sends one image and waits for the response, without encoding or decoding."""
    request = pb.PredictRequest(inputs={"images": to_tensor(IMAGE, content=True)})
    request.model_spec.name, request.model_spec.signature_name = "model", SIGNATURE
    message = request.SerializeToString()
    call = grpc.insecure_channel(address).unary_unary(path)
    return lambda: call(message, timeout=120)


def http_caller(address: str) -> Callable[[], object]:
    body = json.dumps({"image": base64.b64encode(IMAGE.tobytes()).decode()}).encode()

    def call() -> object:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.read()

    return call


def generate(pipe) -> None:
    """The load generator: receives (address, callers, seconds), returns requests per second."""
    while (order := pipe.recv()) is not None:
        address, callers, seconds = order
        call = http_caller(address) if address.startswith("http") else grpc_caller(address)
        call()
        end = time.perf_counter() + seconds

        def send(_: int, call=call, end=end) -> int:
            count = 0
            while time.perf_counter() < end:
                call()
                count += 1
            return count

        began = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            total = sum(pool.map(send, range(callers)))
        pipe.send(total / (time.perf_counter() - began))


class Bare:
    """Interpreters without a server, one per thread."""

    def __init__(self, file: Path, count: int) -> None:
        self._interpreters = [Interpreter(str(file), num_threads=1) for _ in range(count)]
        for interpreter in self._interpreters:
            (details,) = interpreter.get_input_details()
            interpreter.resize_tensor_input(details["index"], IMAGE.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(details["index"], IMAGE.astype(np.float32))
            interpreter.invoke()

    def invoke(self) -> None:
        self._interpreters[0].invoke()

    def rate(self, seconds: float) -> float:
        end = time.perf_counter() + seconds

        def run(interpreter: Interpreter) -> int:
            count = 0
            while time.perf_counter() < end:
                interpreter.invoke()
                count += 1
            return count

        began = time.perf_counter()
        with ThreadPoolExecutor(len(self._interpreters)) as pool:
            total = sum(pool.map(run, self._interpreters))
        return total / (time.perf_counter() - began)


def overhead(bare: Bare, address: str, least: str, turns: int) -> None:
    """A single caller in a closed loop: a few requests of each kind, interleaved."""
    calls = {
        "invoke": bare.invoke,
        "server": grpc_caller(address),
        "least": grpc_caller(least),
        "nothing": grpc_caller(least, f"/{methods.PREDICT.service}/Nothing"),
    }
    medians: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name in calls if turn % 2 else reversed(calls):
            milliseconds = []
            for _ in range(SETTLING + ASKED):
                began = time.perf_counter()
                calls[name]()
                milliseconds.append(1000 * (time.perf_counter() - began))
            if turn:
                medians[name].append(statistics.median(milliseconds[SETTLING:]))

    def over_invoke(name: str) -> float:
        return statistics.median(a - b for a, b in zip(medians[name], medians["invoke"], strict=True))

    print(
        f"  one caller: invoke {statistics.median(medians['invoke']):.2f} ms, round trip minus invoke "
        f"{over_invoke('server'):.2f} ms (network and nothing else {over_invoke('least'):.2f}); round trip of nothing "
        f"{statistics.median(medians['nothing']):.2f} ms"
    )


def throughput(bare: Bare, addresses: dict[str, str], load, repeats: int, seconds: float) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ("bare", *addresses)}
    for turn in range(repeats):
        order = list(rates) if turn % 2 else list(rates)[::-1]
        for name in order:
            if name == "bare":
                rates[name].append(bare.rate(seconds))
                continue
            load.send((addresses[name], CALLERS, seconds))
            rates[name].append(load.recv())
    for name, values in rates.items():
        if name == "server":
            continue
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["server"], values, strict=True))
        print(
            f"  {CALLERS} callers: server {statistics.median(rates['server']):.1f}/s, {name} "
            f"{statistics.median(values):.1f}/s, ratio {ratio:.2f}"
        )


def start(path: Path, repeats: int) -> None:
    seconds, memory = [], []
    for _ in range(repeats):
        with serving(path) as (process, address, began):
            grpc_caller(address)()
            seconds.append(time.perf_counter() - began)
            time.sleep(0.5)
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
    print(f"  start to first response {statistics.median(seconds):.2f} s, memory {statistics.median(memory):.0f} MB")


@contextlib.contextmanager
def rival(python: str, kind: str, version: Path) -> Iterator[str | None]:
    """The address of another server with the same SavedModel; None if it isn't installed."""
    script = Path(__file__).with_name("server_rivals.py")
    with subprocess.Popen(
        [python, str(script), kind, str(version), str(os.cpu_count() or 1)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        address = None
        for line in process.stdout:
            if line.startswith("http"):
                address = line.strip()
                break
        # Further output must not fill the pipe and block the server.
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield address
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # LitServe doesn't stop its workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of the throughput, and starts")
    parser.add_argument("--turns", type=int, default=20, help="rounds of a single caller")
    parser.add_argument("--seconds", type=float, default=3, help="duration of each round of the throughput, in seconds")
    parser.add_argument("--folder", type=Path, help="folder to keep and reuse the exported servables in")
    parser.add_argument(
        "--rivals",
        metavar="PYTHON",
        help='Python interpreter with LitServe and Ray Serve to compare with: pip install litserve "ray[serve]"',
    )
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    load, other = context.Pipe()
    generator = context.Process(target=generate, args=(other,), daemon=True)
    generator.start()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in arguments.models:
            path = folder / name
            if not path.exists():
                # In a process of its own: TensorFlow's threads and memory stay out of the measurement.
                exporting = context.Process(target=export, args=(name, path))
                exporting.start()
                exporting.join()
            version = max((child for child in path.iterdir() if child.name.isdecimal()), key=lambda p: int(p.name))
            print(f"{name}, {os.cpu_count()} CPUs", flush=True)
            start(path, arguments.repeats)
            with contextlib.ExitStack() as servers:
                bare = Bare(version / "model.tflite", os.cpu_count() or 1)
                address = servers.enter_context(serving(path))[1]
                least = servers.enter_context(floor(version / "model.tflite"))
                overhead(bare, address, least, arguments.turns)
                slow = servers.enter_context(serving(path, "engine='tensorflow'"))[1]
                addresses = {"server": address, "network and nothing else": least, "TensorFlow engine": slow}
                for kind in RIVALS if arguments.rivals else ():
                    found = servers.enter_context(rival(arguments.rivals, kind, version))
                    if found is None:
                        print(f"  {RIVALS[kind]} is skipped: it doesn't run in {arguments.rivals}")
                    else:
                        addresses[RIVALS[kind]] = found
                throughput(bare, addresses, load, arguments.repeats, arguments.seconds)
    load.send(None)
    generator.join()


if __name__ == "__main__":
    main()
