"""The server as an object."""

import os
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from keraslight_serving.server._config import ModelConfig, read_config_file
from keraslight_serving.server._errors import StartError
from keraslight_serving.server._model import LoadPolicy
from keraslight_serving.server._repository import Repository
from keraslight_serving.server._servable import Servable
from keraslight_serving.server._service import Service, add_to_server
from keraslight_serving.server.rest import Handler, RestApp, RestServer

MAX_MESSAGE_BYTES = 2**31 - 1
# As TensorFlow Serving calls itself in health checks; it knows no models there.
_SERVICES = ("ModelService", "PredictionService")


class ModelServer:
    """Serves models, the newest version of one or a whole repository, without encryption or authentication.

    They are served over gRPC, and with `rest_api_port` over REST, too.

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
        rest_api_port: for the REST API; 0 picks a free one, None: there is none.
        rest_api_timeout_in_ms: milliseconds for an answer over REST; 0: no limit.
        rest_api_num_threads: REST requests that are worked on at a time. Default: four for each CPU.
        rest_api_enable_cors_support: let web pages of other origins ask over REST.

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
        rest_api_port: int | None = None,
        rest_api_timeout_in_ms: int = 30_000,
        rest_api_num_threads: int | None = None,
        rest_api_enable_cors_support: bool = False,
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
        if rest_api_port is not None and not 0 <= rest_api_port < 2**16:
            raise ValueError(f"`rest_api_port` must be between 0 and 65535. Received: {rest_api_port}")
        if rest_api_timeout_in_ms < 0:
            raise ValueError(f"`rest_api_timeout_in_ms` must be at least 0. Received: {rest_api_timeout_in_ms}")
        for name, value in (
            ("num_threads", num_threads),
            ("num_interpreters", num_interpreters),
            ("rest_api_num_threads", rest_api_num_threads),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {value}")
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = num_threads or min(max(cpus // 2, 1), 4)
        interpreters = num_interpreters or max(1, cpus // threads)

        def load(folder: Path, eager: bool) -> Servable:
            return Servable(folder, threads=threads, interpreters=interpreters, eager=eager or load_saved_model)

        self._host = host
        self._wanted_port = port
        # More threads than run at once: those that wait for an interpreter must not keep GetModelStatus waiting, too.
        self._workers = 4 * max(cpus, interpreters) + 4
        self._health = health.HealthServicer()
        if model_config_file is None:
            configs = [ModelConfig(model_name, Path(model_base_path).absolute())]
        else:
            configs = read_config_file(Path(model_config_file))
        self._repository = Repository(
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
        self._service = Service(self._repository)
        self._rest: RestServer | None = None
        if rest_api_port is not None:
            app = RestApp(
                Handler(self._service, self._repository),
                timeout=rest_api_timeout_in_ms / 1000 or None,
                threads=rest_api_num_threads or 4 * cpus,
                cors=rest_api_enable_cors_support,
            )
            self._rest = RestServer(app, host, rest_api_port)
        self._config_file = (model_config_file, model_config_file_poll_wait_seconds)
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

    @property
    def rest_address(self) -> str:
        """`http://host:port`, as clients take it.

        Raises:
            RuntimeError: the server is not started, or has no REST API.
        """
        if self._rest is None or self._rest.port is None:
            raise RuntimeError("A server with `rest_api_port` has a REST address once it is started. Received: none")
        return f"http://{self._host}:{self._rest.port}"

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
            futures.ThreadPoolExecutor(self._workers, thread_name_prefix="grpc"),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # Else a second server could share the port, and each would get some of the requests.
                ("grpc.so_reuseport", 0),
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
        if self._rest is not None:
            try:
                self._rest.start()
            except StartError:
                server.stop(None)
                self._repository.close()
                raise
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
        stopped = self._server.stop(grace)
        if self._rest is not None:
            self._rest.stop(grace)
        stopped.wait()
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
