"""A client that is closed while others still use it: their calls end, and no connection is opened again."""

import asyncio
import concurrent.futures
import threading
import time

import grpc
import pytest
from keraslight_serving.client import AsyncClassifierClient, ClassifierClient, ClientClosed, Retry
from keraslight_serving.client._rest import AsyncRestChannel, RestChannel
from keraslight_serving.wire import methods, serving_pb2 as pb

IMAGE = b"\xff\xd8\xff"


@pytest.fixture(params=["refuses", "never answers"])
def address(request):
    """A server that a client would try again and again, and one that it would wait for."""
    came, leave = threading.Event(), threading.Event()

    def answer(data, context):
        came.set()
        if request.param == "refuses":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        leave.wait(30)

    handler = grpc.method_handlers_generic_handler(
        methods.PREDICT.service, {methods.PREDICT.name: grpc.unary_unary_rpc_method_handler(answer)}
    )
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", came
    leave.set()
    server.stop(None)


OPTIONS = {"timeout": 20, "retry": Retry(attempts=1000, budget=1000, first_pause=0.2, longest_pause=0.2)}


def check(error, client, seconds):
    assert isinstance(error, ClientClosed)
    assert str(error).startswith("The client must be open. Received: close() during the call")
    assert error.model == "tiny"
    assert seconds < 10
    assert [endpoint._channel for endpoint in client._endpoints] == [None]


def test_threads(address):
    target, came = address
    client = ClassifierClient(target, "tiny", **OPTIONS)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(client.classify, IMAGE)
        assert came.wait(10)
        began = time.monotonic()
        client.close()
        error = asked.exception(15)
    check(error, client, time.monotonic() - began)


def test_tasks(address):
    target, came = address

    async def close_meanwhile():
        client = AsyncClassifierClient(target, "tiny", **OPTIONS)
        asked = asyncio.ensure_future(client.classify(IMAGE))
        while not came.is_set():
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await client.close()
        (error,) = await asyncio.wait_for(asyncio.gather(asked, return_exceptions=True), 15)
        check(error, client, time.monotonic() - began)

    asyncio.run(close_meanwhile())


def test_what_a_call_over_rest_asks_next_after_the_end():
    """A call may ask for the metadata first: when that has come, the connections may be closed."""
    request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name="tiny"))
    path = methods.GET_MODEL_STATUS.path
    options = {"context": None, "proxies": False, "max_message_bytes": 1000}

    def closed():
        channel = RestChannel("http://127.0.0.1:1", **options)
        call = channel.unary_unary(path)
        channel.close()
        call(request)

    async def closed_in_a_loop():
        channel = AsyncRestChannel("http://127.0.0.1:1", **options)
        call = channel.unary_unary(path)
        await channel.close()
        await call(request)

    for way in (closed, lambda: asyncio.run(closed_in_a_loop())):
        with pytest.raises(grpc.RpcError) as caught:
            way()
        assert caught.value.code() == grpc.StatusCode.CANCELLED
