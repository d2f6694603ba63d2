"""The lower bound for a gRPC server in Python, for server_speed.py: `python server_floor.py MODEL.tflite WORKERS`.

No parsing, no models by name, no checks, no metrics: `Predict` takes the last bytes of the message as the image, runs
the network in as many threads as there are workers and sends the result's bytes; `Nothing` takes the same message and
responds immediately. Anything above this is the overhead of the embedded server. Prints its address as a line on stdout
and exits when stdin is closed.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from ai_edge_litert.interpreter import Interpreter

CALLERS = 64
_own = threading.local()


def load(content: bytes) -> None:
    _own.interpreter = Interpreter(model_content=content, num_threads=1)
    _own.interpreter.allocate_tensors()
    (images,), outputs = _own.interpreter.get_input_details(), _own.interpreter.get_output_details()
    _own.images, _own.shape, _own.output = images["index"], images["shape"], outputs[0]["index"]


def run(message: bytes) -> bytes:
    size = int(np.prod(_own.shape))
    image = np.frombuffer(message, np.uint8, size, len(message) - size).reshape(_own.shape)
    np.copyto(_own.interpreter.tensor(_own.images)(), image, casting="unsafe")
    _own.interpreter.invoke()
    return _own.interpreter.get_tensor(_own.output).tobytes()


def main(path: str, workers: str) -> None:
    networks = ThreadPoolExecutor(int(workers), initializer=load, initargs=(Path(path).read_bytes(),))
    handlers = {
        "Predict": lambda message, context: networks.submit(run, message).result(),
        "Nothing": lambda message, context: message[:4000],
    }
    service = grpc.method_handlers_generic_handler(
        "tensorflow.serving.PredictionService",
        {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()},
    )
    server = grpc.server(ThreadPoolExecutor(CALLERS))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
