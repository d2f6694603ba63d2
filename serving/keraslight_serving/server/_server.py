"""The server as an object."""

import os
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keraslight_serving.server._errors import StartError
from keraslight_serving.server._loader import Loader
from keraslight_serving.server._repository import Repository
from keraslight_serving.server._service import Service, add_to_server

MAX_MESSAGE_BYTES = 2**31 - 1
# As TensorFlow Serving calls itself in health checks; it knows no models there.
_SERVICES = ("ModelService", "PredictionService")


class ModelServer:
    """Serves the newest version of one model over gRPC, without encryption or authentication.

    `grpc.health.v1` is answered for the server (""), for TensorFlow Serving's `ModelService` and `PredictionService`,
    and for the model's name, which is NOT_SERVING while no version is loaded; all are once the server stops.

    Args:
        model_name: what clients ask for.
        model_base_path: the folder that holds the version folders.
        host: the address to listen on. Only this machine can reach the default; "0.0.0.0" is for all.
        port: 0 picks a free one.
        file_system_poll_wait_seconds: how often to look for new versions; 0: only at the start.
        num_threads: CPU threads of one LiteRT interpreter. Default: half of the CPUs, 1 to 4. More make one answer
            quicker on an idle machine; 1 gives most requests per second, and suffers least from busy neighbours.
        num_interpreters: LiteRT interpreters, that is requests that run at once. Default: as many as have a CPU for
            each of their threads.
        load_saved_model: load the SavedModel with its version, not at the first request that needs it. That request
            then doesn't wait for TensorFlow's import; a server that only runs `model.tflite` stays small without.
        engine: `auto` runs what it can in LiteRT and the rest in TensorFlow; `litert` serves only what needs no
            TensorFlow; `tensorflow` runs everything in the SavedModel, as TensorFlow Serving does.
        enable_batching: join requests to batches. It pays where a batch costs less than its rows do one by one, as with
            TensorFlow's engine; LiteRT's cost the same on a CPU.
        batching_parameters_file: TensorFlow Serving's BatchingParameters, as text; its defaults where left out.
        enable_per_model_batching_parameters: versions are batched as the `batching_params.pbtxt` in their folders says,
            those without one not at all. The threads are those of `batching_parameters_file`.
        enable_model_warmup: replay a version's `assets.extra/tf_serving_warmup_requests` before it is announced.
        num_request_iterations_for_warmup: how often.

    Raises:
        ValueError: a number is out of range, or `batching_parameters_file` can't be used.
    """

    def __init__(
        self,
        model_name: str,
        model_base_path: str | os.PathLike,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        file_system_poll_wait_seconds: float = 1,
        num_threads: int | None = None,
        num_interpreters: int | None = None,
        load_saved_model: bool = False,
        engine: str = "auto",
        enable_batching: bool = False,
        batching_parameters_file: str | os.PathLike | None = None,
        enable_per_model_batching_parameters: bool = False,
        enable_model_warmup: bool = True,
        num_request_iterations_for_warmup: int = 1,
    ) -> None:
        if not model_name:
            raise ValueError("`model_name` must not be empty. Received: ''")
        if not 0 <= port < 2**16:
            raise ValueError(f"`port` must be between 0 and 65535. Received: {port}")
        self._loader = Loader(
            num_threads=num_threads,
            num_interpreters=num_interpreters,
            load_saved_model=load_saved_model,
            engine=engine,
            enable_batching=enable_batching,
            batching_parameters_file=batching_parameters_file,
            enable_per_model_batching_parameters=enable_per_model_batching_parameters,
            enable_model_warmup=enable_model_warmup,
            num_request_iterations_for_warmup=num_request_iterations_for_warmup,
        )
        self._host = host
        self._wanted_port = port
        self._model_name = model_name
        self._health = health.HealthServicer()
        self._repository = Repository(
            model_name,
            Path(model_base_path).absolute(),
            self._loader,
            poll_seconds=file_system_poll_wait_seconds,
            on_serving=self._report_health,
        )
        self._server: grpc.Server | None = None
        self._port: int | None = None

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            RuntimeError: the server is not started.
        """
        if self._port is None:
            raise RuntimeError("A server has a port once it is started. Received: a server that is not")
        return self._port

    @property
    def address(self) -> str:
        """`host:port`, as clients take it."""
        return f"{self._host}:{self.port}"

    def start(self) -> "ModelServer":
        """Loads the model, then opens the port: whoever can connect gets answers.

        Raises:
            StartError: no version that loads, or the port is taken.
        """
        if self._server is not None:
            raise RuntimeError("A server can be started once. Received: a second start()")
        try:
            self._repository.start()
        except StartError:
            self._loader.close()
            raise
        server = grpc.server(
            futures.ThreadPoolExecutor(self._loader.callers, thread_name_prefix="grpc"),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # Else a second server could share the port, and each would get some of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        add_to_server(Service(self._repository), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in ("", *_SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        target = f"{self._host}:{self._wanted_port}"
        try:
            port = server.add_insecure_port(target)
        except RuntimeError as error:
            port, reason = 0, str(error)
        else:
            reason = "grpc could not bind it"
        if port == 0:
            self._repository.close()
            self._loader.close()
            raise StartError(f"The server must be able to listen on its address. Received: {target}, {reason}")
        server.start()
        self._server, self._port = server, port
        return self

    def stop(self, grace: float | None = 5.0) -> None:
        """Takes no new requests, lets those in flight finish, and unloads the model. Does nothing the second time.

        Args:
            grace: seconds after which requests in flight are cancelled; None: at once.
        """
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()  # before the port closes: a load balancer sends no more
        self._server.stop(grace).wait()
        self._server = None
        self._port = None
        self._repository.close()
        self._loader.close()

    def _report_health(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self._health.set(self._model_name, states.SERVING if serving else states.NOT_SERVING)

    def __enter__(self) -> "ModelServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
