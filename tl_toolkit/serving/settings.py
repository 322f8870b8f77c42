"""What a server is told: its address, its limits, and who may ask."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServeSettings"]


@dataclass(frozen=True)
class ServeSettings:
    """The settings of a server.

    Attributes:
        host: The address to bind.
        port: The port; 0 takes a free one.
        token: The bearer token that requests need; "" for none.
        watch: Whether new versions are loaded while the server runs.
        take_over: Whether it takes the place of a server of the same user at the same address.
        max_batch: The most images that the model gets in one call, of one request or several.
        batch_wait_ms: How long the first image of a batch waits for others.
        queue: The most images that wait; further requests are refused.
        max_body: The most bytes of a request.
        max_pixels: The most pixels of an image, and of all images of a call of the model.
        timeout_seconds: How long a client may take to send a request, and an answer may take.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    token: str = ""
    watch: bool = False
    max_batch: int = 32
    batch_wait_ms: float = 2.0
    queue: int = 256
    max_body: int = 16 << 20
    max_pixels: int = 50_000_000
    timeout_seconds: float = 30.0
    take_over: bool = False
