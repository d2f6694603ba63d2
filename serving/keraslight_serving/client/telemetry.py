"""Hooks that tell other software about the client's calls. Each needs its library, which the client itself does not.

client = ClassifierClient("localhost:8500", "digits", hooks=[prometheus_hook()])
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from keraslight_serving.client._retry import CallEvent


def prometheus_hook(registry: Any = None) -> Callable[[CallEvent], None]:
    """Counts calls, attempts and seconds in Prometheus metrics. Needs `prometheus-client`.

    `keraslight_client_calls_total`, `keraslight_client_attempts_total` and the histogram
    `keraslight_client_call_seconds`, with the labels `model`, `method` and (the first and last) `code`.

    Args:
        registry: a prometheus_client.CollectorRegistry. None: the library's global one, where a name can be registered
            once: give one hook to all clients of a process.

    Raises:
        ImportError: prometheus-client is not installed.
    """
    import prometheus_client

    registry = registry or prometheus_client.REGISTRY
    by_code = ("model", "method", "code")
    calls = prometheus_client.Counter("keraslight_client_calls", "Calls that ended", by_code, registry=registry)
    attempts = prometheus_client.Counter(
        "keraslight_client_attempts", "Requests sent, retries included", by_code[:2], registry=registry
    )
    seconds = prometheus_client.Histogram(
        "keraslight_client_call_seconds", "From the call to its end, retries included", by_code, registry=registry
    )

    def hook(event: CallEvent) -> None:
        calls.labels(event.model, event.method, event.code).inc()
        attempts.labels(event.model, event.method).inc(event.attempts)
        seconds.labels(event.model, event.method, event.code).observe(event.seconds)

    return hook


def opentelemetry_hook(tracer: Any = None) -> Callable[[CallEvent], None]:
    """Writes a span a call. Needs `opentelemetry-api`; without a configured SDK the spans go nowhere.

    The span is a child of the caller's current one, named after the gRPC method, with the attributes of
    OpenTelemetry's conventions for RPC.

    Args:
        tracer: an opentelemetry.trace.Tracer. None: the global provider's.

    Raises:
        ImportError: opentelemetry-api is not installed.
    """
    from opentelemetry import trace

    tracer = tracer or trace.get_tracer("keraslight_serving.client")

    def hook(event: CallEvent) -> None:
        end = time.time_ns()
        span = tracer.start_span(
            event.method,
            kind=trace.SpanKind.CLIENT,
            start_time=end - round(event.seconds * 1e9),
            attributes={
                "rpc.system": "grpc",
                "rpc.method": event.method,
                "rpc.grpc.status_code": event.code,
                "server.address": event.address,
                "keraslight.model": event.model,
                "keraslight.attempts": event.attempts,
                "keraslight.request_bytes": event.request_bytes,
            },
        )
        if event.code != "OK":
            span.set_status(trace.StatusCode.ERROR, event.code)
        span.end(end)

    return hook
