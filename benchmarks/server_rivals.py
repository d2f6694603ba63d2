"""LitServe or Ray Serve with a SavedModel, for server_speed.py: `python server_rivals.py litserve|ray VERSION WORKERS`.

Each takes {"image": base64 of 224x224x3 bytes} in a POST (LitServe only supports JSON and forms) and returns the
probabilities as JSON; one worker per CPU. When ready, it prints its address as a line on stdout. It exits on SIGTERM.

    pip install tensorflow litserve "ray[serve]"
"""

import base64
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np

try:
    import litserve
except ImportError:
    litserve = None  # not needed for Ray Serve; without it, `run_litserve` exits

SIZE = 224


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Model:
    """The signature `serving_uint8` of the SavedModel, called like users do."""

    def __init__(self, version: str) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(version)
        self._run = self._loaded.signatures["serving_uint8"]

    def __call__(self, request: dict[str, str]) -> list[float]:
        image = np.frombuffer(base64.b64decode(request["image"]), np.uint8).reshape(1, SIZE, SIZE, 3)
        return self._run(images=self._tf.constant(image))["probabilities"].numpy()[0].tolist()


class Api(litserve.LitAPI if litserve else object):
    """At module level, because LitServe sends it to its workers."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version

    def setup(self, device: str) -> None:
        self.model = Model(self._version)

    def decode_request(self, request: dict[str, str]) -> dict[str, str]:
        return request

    def predict(self, request: dict[str, str]) -> list[float]:
        return self.model(request)

    def encode_response(self, output: list[float]) -> dict:
        return {"probabilities": output}


def run_litserve(version: str, workers: int, port: int) -> None:
    server = litserve.LitServer(Api(version), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


def run_ray(version: str, workers: int, port: int) -> None:
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(num_replicas=workers, max_ongoing_requests=32)
    class Deployment:
        def __init__(self) -> None:
            self.model = Model(version)

        async def __call__(self, request: Request) -> dict:
            return {"probabilities": self.model(await request.json())}

    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Deployment.bind(), route_prefix="/predict")
    threading.Event().wait()


def announce(address: str) -> None:
    """Prints the address when the server is ready."""
    body = json.dumps({"image": base64.b64encode(bytes(SIZE * SIZE * 3)).decode()}).encode()
    while True:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, body, {"Content-Type": "application/json"}), timeout=60
            ):
                break
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    print(address, flush=True)


if __name__ == "__main__":
    kind, version, workers = sys.argv[1:]
    port = free_port()
    threading.Thread(target=announce, args=(f"http://127.0.0.1:{port}/predict",), daemon=True).start()
    {"litserve": run_litserve, "ray": run_ray}[kind](version, int(workers), port)
