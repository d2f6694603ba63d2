"""The server as an object."""

import os
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keraslight_serving.server._config import ModelConfig, read_config_file
from keraslight_serving.server._errors import StartError
from keraslight_serving.server._model import LoadPolicy
from keraslight_serving.server._repository import Repository
from keraslight_serving.server._servable import Servable
from keraslight_serving.server._service import Service, add_to_server

MAX_MESSAGE_BYTES = 2**31 - 1
NOTICE_SECONDS = 0.1
# grpc gives each call a thread before its message is there: with few of them, as many clients that send a byte now and
# then would keep all others waiting. Idle ones cost little. Beyond, calls are refused: RESOURCE_EXHAUSTED.
OPEN_CALLS = 512
# As TensorFlow Serving calls itself in health checks; it knows no models there.
_SERVICES = ("ModelService", "PredictionService")


class ModelServer:
    """Serves models over gRPC, without encryption or authentication: the newest version of one, or a whole repository.

    `grpc.health.v1` is answered for the server (""), for TensorFlow Serving's `ModelService` and `PredictionService`,
    and for the model's name, which is NOT_SERVING while no version is loaded; all are once the server stops.

    Args:
        model_name: what clients ask for.
        model_base_path: the folder that holds the version folders.
        model_config_file: instead of these two, a `ModelServerConfig` in protobuf's text format, with the models, which
            of their versions are served, and labels for them.
        model_config_file_poll_wait_seconds: how often to read that file again; 0: only at the start.
        allow_version_labels_for_unavailable_models: a reload by a call may give a label that is not in use yet to a
            version that isn't loaded. (The file may in any case: a label moves when its version is loaded.)
        host: the address to listen on. Only this machine can reach the default; "0.0.0.0" is for all.
        port: 0 picks a free one.
        file_system_poll_wait_seconds: how often to look for new versions; 0: only at the start.
        max_num_load_retries: how often a version that can't be loaded is tried again, its files being the same.
        load_retry_interval_micros: until the first of these tries; each next one waits twice as long.
        num_threads: CPU threads of one LiteRT interpreter. Default: half of the CPUs, 1 to 4. More make one answer
            quicker on an idle machine; 1 gives most requests per second, and suffers least from busy neighbours.
        num_interpreters: LiteRT interpreters, that is requests that run at once. Default: as many as have a CPU for
            each of their threads.
        load_saved_model: load the SavedModel with its version, not at the first request that needs it. That request
            then doesn't wait for TensorFlow's import; a server that only runs `model.tflite` stays small without.
        enable_signature_method_name_check: answer Classify and Regress only by signatures whose `method_name` is
            TensorFlow Serving's for them, which those that TensorFlow 2 saves are not.
        enable_serialization_as_tensor_content: answer Predict with `tensor_content`, which is quicker to read, rather
            than with lists such as `float_val`, which old clients expect.
        make_repository, shared_port: for the workers of `_workers.py`: what is called in place of Repository, and
            whether other processes listen on the same port.

    Raises:
        ValueError: a number is out of range.
        StartError: the model config file can't be read.
    """

    def __init__(
        self,
        model_name: str = "default",
        model_base_path: str | os.PathLike | None = None,
        *,
        model_config_file: str | os.PathLike | None = None,
        model_config_file_poll_wait_seconds: float = 0,
        allow_version_labels_for_unavailable_models: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        file_system_poll_wait_seconds: float = 1,
        max_num_load_retries: int = 5,
        load_retry_interval_micros: int = 60_000_000,
        num_threads: int | None = None,
        num_interpreters: int | None = None,
        load_saved_model: bool = False,
        enable_signature_method_name_check: bool = False,
        enable_serialization_as_tensor_content: bool = False,
        make_repository: Callable[..., Any] = Repository,
        shared_port: bool = False,
    ) -> None:
        if (model_base_path is None) == (model_config_file is None):
            raise ValueError(
                "Either `model_base_path` or `model_config_file` must be given. "
                f"Received: {model_base_path!r} and {model_config_file!r}"
            )
        if not model_name:
            raise ValueError("`model_name` must not be empty. Received: ''")
        if not 0 <= port < 2**16:
            raise ValueError(f"`port` must be between 0 and 65535. Received: {port}")
        for name, value in (("num_threads", num_threads), ("num_interpreters", num_interpreters)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {value}")
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = num_threads or min(max(cpus // 2, 1), 4)
        interpreters = num_interpreters or max(1, cpus // threads)

        def load(folder: Path, eager: bool) -> Servable:
            return Servable(folder, threads=threads, interpreters=interpreters, eager=eager or load_saved_model)

        self._host = host
        self._wanted_port = port
        self._health = health.HealthServicer()
        if model_config_file is None:
            configs = [ModelConfig(model_name, Path(model_base_path).absolute())]
        else:
            configs = read_config_file(Path(model_config_file))
        self._repository = make_repository(
            configs,
            LoadPolicy(
                load,
                poll_seconds=file_system_poll_wait_seconds,
                retries=max_num_load_retries,
                retry_seconds=load_retry_interval_micros / 1e6,
                on_serving=self._report_health,
            ),
            allow_labels_anywhere=allow_version_labels_for_unavailable_models,
        )
        self._config_file = (model_config_file, model_config_file_poll_wait_seconds)
        self._shared_port = shared_port
        self._service = Service(
            self._repository,
            check_methods=enable_signature_method_name_check,
            tensor_content=enable_serialization_as_tensor_content,
            # Somewhat more than run at once: while one waits for an interpreter, another is read or written.
            slots=4 * max(cpus, interpreters) + 4,
        )
        self._server: grpc.Server | None = None
        self._port: int | None = None

    @property
    def repository(self) -> Any:
        """The models, as `make_repository` made them."""
        return self._repository

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
        self._repository.start()
        path, seconds = self._config_file
        if path is not None and seconds > 0:
            self._repository.follow_file(Path(path), seconds)
        server = grpc.server(
            futures.ThreadPoolExecutor(OPEN_CALLS, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=OPEN_CALLS,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # Else a second server could share the port by mistake, and each would get some of the requests.
                ("grpc.so_reuseport", int(self._shared_port)),
            ],
        )
        add_to_server(self._service, server)
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
            raise StartError(f"The server must be able to listen on its address. Received: {target}, {reason}")
        server.start()
        self._server, self._port = server, port
        return self

    def stop(self, grace: float | None = 5.0) -> None:
        """Refuses new requests, lets those in flight finish, and unloads the model. Does nothing the second time.

        Args:
            grace: seconds after which requests in flight are cancelled; None: at once.
        """
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()  # before the port closes: a load balancer sends no more
        self._service.close()
        if grace:
            # gRPC answers CANCELLED, which nobody sends again, to calls that arrive while it shuts down. So the callers
            # hear UNAVAILABLE from us before.
            time.sleep(min(grace, NOTICE_SECONDS))
        self._server.stop(grace).wait()
        self._server = None
        self._port = None
        self._repository.close()

    def _report_health(self, model: str, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self._health.set(model, states.SERVING if serving else states.NOT_SERVING)

    def __enter__(self) -> "ModelServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
