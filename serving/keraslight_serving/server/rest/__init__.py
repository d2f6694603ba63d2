"""TensorFlow Serving's REST API, beside gRPC in the server's process.

    _app.py        HTTP: bodies, threads, deadlines, headers
    _handler.py    what is asked for: URLs and JSON on one side, `Service` on the other
    _json.py       reading JSON
    _tensors.py    JSON -> arrays
    _examples.py   JSON -> tf.Example
    _text.py       answers -> JSON

It stays plain HTTP, as TensorFlow Serving's does: where it must not, put a proxy in front.
"""

import socket
import threading

import uvicorn

from keraslight_serving.server.base.errors import StartError
from keraslight_serving.server.rest._app import RestApp
from keraslight_serving.server.rest._handler import Handler

__all__ = ["Handler", "RestApp", "RestServer"]

KEEP_ALIVE = 60  # seconds in which a connection may wait for its next request


class RestServer:
    """Serves an application over HTTP/1.1, in a thread with its own event loop.

    Args:
        app: closed with the server.
        host: the address to listen on.
        port: 0 picks a free one.
        shared_port: let servers in other processes listen on the same port; each then gets some of the connections.
    """

    def __init__(self, app: RestApp, host: str, port: int, *, shared_port: bool = False) -> None:
        self._app = app
        self._host, self._wanted_port = host, port
        self._shared_port = shared_port
        self._socket: socket.socket | None = None
        self._uvicorn: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port: int | None = None

    def start(self) -> None:
        """Opens the port.

        Raises:
            StartError: it is taken, or the address is none of this machine's.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        address = (self._host.strip("[]"), self._wanted_port)
        try:
            self._socket = socket.create_server(address, family=family, backlog=1024, reuse_port=self._shared_port)
        except OSError as error:
            raise StartError(
                "The server must be able to listen on its REST address. "
                f"Received: {self._host}:{self._wanted_port}, {error.strerror or error}"
            ) from error
        # Handed down to the connections. asyncio does it only for sockets that say TCP, which create_server's don't:
        # without, an answer's body waits 40 ms for the client to acknowledge its headers.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            loop="asyncio",
            http="h11",  # bounds what it keeps of a header; its speed is no matter beside a model's
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, name="rest", daemon=True
        )
        self._thread.start()

    def stop(self, grace: float | None) -> None:
        """Takes no new connections, and lets requests in flight finish. Does nothing the second time.

        Args:
            grace: seconds after which requests in flight are cancelled; None: at once.
        """
        if self._thread is None:
            return
        self._uvicorn.config.timeout_graceful_shutdown = grace or 0
        self._uvicorn.should_exit = True
        self._thread.join()
        self._app.close()
        self._thread = self._socket = self.port = None
