"""Figures for Prometheus. Labels are made of the service's own routes, never of what a client sent."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS")


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "reprism_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "reprism_request_seconds", "From a request to its answer.", ("method", "route"), registry=self.registry
        )
        self.refused = Counter("reprism_requests_refused", "Requests answered 503.", registry=self.registry)
        self.batches = Histogram(
            "reprism_network_batch_pictures",
            "Pictures that the network took at a time.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a figure that is looked up whenever it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format (``CONTENT_TYPE``)."""
        return generate_latest(self.registry)


class CountedApp:
    """Counts and times an app's requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note how it ended."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, started = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            return await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
