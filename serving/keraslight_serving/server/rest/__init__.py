"""TensorFlow Serving's REST API, next to gRPC in the server's process.

    _connections.py  idle connections, and too many of them
    _app.py        HTTP: bodies, threads, deadlines, headers
    _handler.py    URLs and JSON -> `Service` -> JSON
    _json.py       parses JSON
    _tensors.py    JSON -> arrays
    _examples.py   JSON -> tf.Example
    _text.py       answers -> JSON

As in TensorFlow Serving, it is plain HTTP: use a proxy for TLS.
"""

import asyncio
import math
import socket
import threading

import uvicorn

from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.rest._app import RestApp
from keraslight_serving.server.rest._connections import Connections, ErrorsOfTheLoop, most_connections, protocol
from keraslight_serving.server.rest._handler import Handler

__all__ = ["Handler", "RestApp", "RestServer"]


class RestServer:
    """Serves an application, which is closed with it, over HTTP/1.1 from a thread with its own event loop.

    `port` 0 stands for any free one. With `shared_port`, servers in other processes may listen on the same port; each
    then gets some of the connections. A connection without a request is closed after `idle_seconds`, or at once if
    there are `connections` (default: half of what the process may open) and another client connects. The attribute
    `port` is None unless the server is running.
    """

    def __init__(
        self,
        app: RestApp,
        host: str,
        port: int,
        *,
        shared_port: bool = False,
        idle_seconds: float = 60.0,
        connections: int | None = None,
    ) -> None:
        self._idle_seconds, self._connections = idle_seconds, connections or most_connections()
        self._app, self._host, self._wanted_port, self._shared_port = app, host, port, shared_port
        self._socket: socket.socket | None = None
        self._uvicorn: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port: int | None = None

    def start(self) -> None:
        """Opens the port. Raises StartError if it is in use, or if the address is not one of this machine's."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        address = (self._host.strip("[]"), self._wanted_port)
        try:
            self._socket = socket.create_server(
                address,
                family=family,
                backlog=1024,
                reuse_port=self._shared_port,
                dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6(),  # all addresses, as for gRPC
            )
        except OSError as error:
            raise StartError(
                "The server must be able to listen on its REST address. "
                f"Received: {self._host}:{self._wanted_port}, {error.strerror or error}"
            ) from error
        # Connections inherit this. asyncio sets it only on sockets whose protocol is TCP, which create_server leaves
        # open. Without it, the body of an answer waits 40 ms for the client to acknowledge the headers.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            loop="asyncio",
            # h11 limits the size of headers; next to a model, its speed doesn't matter
            http=protocol(Connections(self._connections), self._idle_seconds),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(self._idle_seconds),
        )
        self._uvicorn = uvicorn.Server(config)
        serving = self._serve(self._uvicorn, self._socket)
        self._thread = threading.Thread(target=asyncio.run, args=(serving,), name="rest", daemon=True)
        self._thread.start()

    async def _serve(self, server: uvicorn.Server, listening: socket.socket) -> None:
        asyncio.get_running_loop().set_exception_handler(ErrorsOfTheLoop())
        await server.serve([listening])

    def stop(self, grace: float | None) -> None:
        """Closes the port if it is open. Requests in flight are cancelled after `grace` seconds (None: at once)."""
        if self._thread is None or self._uvicorn is None:
            return
        # uvicorn declares an int, but asyncio takes it, and fractions too
        self._uvicorn.config.timeout_graceful_shutdown = grace or 0  # type: ignore[assignment]
        self._uvicorn.should_exit = True
        self._thread.join()
        self._app.close()
        self._thread = self._socket = self.port = None
