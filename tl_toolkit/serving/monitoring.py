"""Counts and times of a server, in the form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

__all__ = ["CONTENT_TYPE_LATEST", "Monitor"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Monitor:
    """What a server counts.

    Args:
        count_waiting: Returns how many images wait.
        find_version: Returns the version that is served.
    """

    def __init__(self, count_waiting: Callable[[], int], find_version: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "tltool_requests", "Requests that were answered.", ["endpoint", "code"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "tltool_request_seconds", "Time from the head of a request to its answer.",
            ["endpoint"], buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "tltool_batch_images", "Images of a call of the model.", buckets=_IMAGES,
            registry=self._registry,
        )  # fmt: skip
        self._calls = Histogram(
            "tltool_batch_seconds", "Time of a call of the model.", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        waiting = Gauge("tltool_waiting_images", "Images that wait.", registry=self._registry)
        waiting.set_function(count_waiting)
        version = Gauge("tltool_model_version", "The version served.", registry=self._registry)
        version.set_function(find_version)

    def count_request(self, endpoint: str, code: int, seconds: float) -> None:
        """Counts a request.

        Args:
            endpoint: What was asked, one of a few words.
            code: The status that it was answered with.
            seconds: How long that took.
        """
        self._requests.labels(endpoint, str(code)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """Counts a call of the model.

        Args:
            images: Of all requests that it answers.
            seconds: How long it took.
        """
        self._batches.observe(images)
        self._calls.observe(seconds)

    def render(self) -> bytes:
        """Returns all of it as text."""
        return generate_latest(self._registry)
