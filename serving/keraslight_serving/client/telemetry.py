"""Hooks that report the client's calls to other software. Each needs its library, which the client itself doesn't.

client = ClassifierClient("localhost:8500", "digits", hooks=[prometheus_hook()])
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from keraslight_serving.client._retry import CallEvent
from keraslight_serving.extras import require

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry


def prometheus_hook(registry: CollectorRegistry | None = None) -> Callable[[CallEvent], None]:
    """Counts calls, attempts and seconds in Prometheus metrics. Needs `prometheus-client`.

    The metrics are `keraslight_client_calls_total`, `keraslight_client_attempts_total` and the histogram
    `keraslight_client_call_seconds`, with the labels `model`, `method` and, except for the attempts, `code`.

    Args:
        registry: Registry for the metrics. None: the library's global registry, which accepts each name only once, so
            all clients of a process must share one hook.

    Raises:
        MissingDependencyError: prometheus-client is not installed.
    """
    require("prometheus_hook", "telemetry", "prometheus_client")

    from prometheus_client import REGISTRY, Counter, Histogram

    prefix, by_code, registry = "keraslight_client", ("model", "method", "code"), registry or REGISTRY
    calls = Counter(f"{prefix}_calls", "Finished calls", by_code, registry=registry)
    attempts = Counter(f"{prefix}_attempts", "Requests sent, including retries", by_code[:2], registry=registry)
    seconds = Histogram(f"{prefix}_call_seconds", "Duration of calls, including retries", by_code, registry=registry)

    def hook(event: CallEvent) -> None:
        calls.labels(event.model, event.method, event.code).inc()
        attempts.labels(event.model, event.method).inc(event.attempts)
        seconds.labels(event.model, event.method, event.code).observe(event.seconds)

    return hook


def opentelemetry_hook(tracer: Tracer | None = None) -> Callable[[CallEvent], None]:
    """Records a span per call. Needs `opentelemetry-api`; without a configured SDK the spans are dropped.

    Each span is a child of the caller's current span, is named after the gRPC method, and has the attributes of
    OpenTelemetry's conventions for RPC.

    Args:
        tracer: Tracer for the spans. None: one of the global provider.

    Raises:
        MissingDependencyError: opentelemetry-api is not installed.
    """
    require("opentelemetry_hook", "telemetry", "opentelemetry.trace")

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
