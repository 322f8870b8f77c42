"""The application: routes, limits of requests, the token, and errors as the protocols have them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tl_toolkit import __version__
from tl_toolkit.serving import inference, rest
from tl_toolkit.serving.batching import Batcher
from tl_toolkit.serving.compression import Compression
from tl_toolkit.serving.guard import Guard
from tl_toolkit.serving.messages import Bodies, write_error, write_json
from tl_toolkit.serving.monitoring import CONTENT_TYPE_LATEST, Monitor
from tl_toolkit.serving.page import PAGE_HEADERS, render_page
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.settings import ServeSettings
from tl_toolkit.serving.tensors import Refusal, count_bytes
from tl_toolkit.serving.versions import Versions

__all__ = ["build_app"]

_logger = logging.getLogger("tl_toolkit")

_Handler = Callable[[Request], Awaitable[Response]]


def build_app(versions: Versions, settings: ServeSettings, name: str, *, is_local: bool) -> ASGIApp:
    """Returns the application.

    Args:
        versions: The model, whose first version is loaded.
        settings: The settings.
        name: What the model is called in paths.
        is_local: Whether it is bound to a loopback address.
    """
    app = _Endpoints(versions, settings, name).build()
    return Guard(app, token=settings.token, local_host=settings.host if is_local else None)


class _Endpoints:
    """What each path answers."""

    def __init__(self, versions: Versions, settings: ServeSettings, name: str) -> None:
        self._versions = versions
        self._settings = settings
        self._name = name
        self._bodies = Bodies(settings.max_body, settings.timeout_seconds)
        self._batcher: Batcher | None = None
        self._monitor = Monitor(
            lambda: self._batcher.waiting if self._batcher else 0, lambda: versions.model.version
        )

    def build(self) -> Starlette:
        """Returns the routes."""
        v1, v2 = "/v1/models/{name}", "/v2/models/{name}"
        places = ("", "/versions/{version}")
        routes = [
            *[self._route(f"{v1}{place}:{{method}}", self._predict, "POST") for place in places],
            *[self._route(f"{v1}{place}/metadata", self._metadata) for place in places],
            *[self._route(f"{v1}{place}", self._status) for place in places],
            *[self._route(f"{v2}{place}/infer", self._infer, "POST") for place in places],
            *[self._route(f"{v2}{place}/ready", self._model_ready) for place in places],
            *[self._route(f"{v2}{place}", self._model) for place in places],
            *[
                self._route(f"{v1}/labels/{{label:path}}", self._label, method)
                for method in ("GET", "POST")
            ],
            self._route("/v2", self._server),
            self._route("/v2/health/live", self._live),
            self._route("/v2/health/ready", self._ready),
            self._route("/metrics", self._metrics),
            self._route("/", self._page),
        ]
        errors = {HTTPException: self._refuse_path}
        app = Starlette(
            routes=routes, lifespan=self._run_lifespan, exception_handlers=errors,
            middleware=[Middleware(Compression)],
        )  # fmt: skip
        app.router.redirect_slashes = False
        return app

    def _route(self, path: str, handler: _Handler, method: str = "GET") -> Route:
        endpoint = handler.__name__.strip("_")

        @functools.wraps(handler)
        async def answer(request: Request) -> Response:
            start = time.monotonic()
            response = await self._answer(handler, request)
            self._monitor.count_request(endpoint, response.status_code, time.monotonic() - start)
            return response

        return Route(path, answer, methods=[method])

    async def _answer(self, handler: _Handler, request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return write_error(refusal.status, refusal.text, refusal.headers)
        except ClientDisconnect:
            return write_error(499, "the client has gone")
        except Exception:
            _logger.exception("%s %s failed", request.method, request.url.path)
            return write_error(500, "the server failed; its log says why")

    async def _refuse_path(self, request: Request, error: Exception) -> Response:
        """Answers a path that there is none of, or a wrong method, as the protocols do."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers = getattr(error, "headers", None) or {}
        self._monitor.count_request("unknown", status, 0.0)
        return write_error(status, _describe_malformed(request), headers)

    @contextlib.asynccontextmanager
    async def _run_lifespan(self, app: Starlette) -> AsyncIterator[None]:
        settings = self._settings
        self._batcher = Batcher(
            max_batch=settings.max_batch, max_pixels=settings.max_pixels,
            wait_ms=settings.batch_wait_ms, limit=settings.queue,
            observe=self._monitor.count_batch,
        )  # fmt: skip
        watching = None
        if settings.watch:
            watching = asyncio.create_task(self._versions.watch())
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            await self._batcher.close()
            self._bodies.close()

    # ------------------------------------------------------------ the form of TensorFlow Serving

    async def _predict(self, request: Request) -> Response:
        method = request.path_params["method"]
        if method != "predict":
            known = method in ("classify", "regress")
            text = f"{method}: expected predict" if known else _describe_malformed(request)
            raise Refusal(400, text)
        model = self._find(request, "Servable not found for request: {}")

        def read(body: bytearray) -> rest.Call:
            return rest.read_predict(rest.read_body(body), model.find)

        def write(call: rest.Call, outputs: Any) -> Any:
            return rest.write_predict(outputs, call.form)

        return await self._run(request, model, read, write)

    async def _metadata(self, request: Request) -> Response:
        model = self._find(request, "Servable not found for request: {}")
        return write_json(
            {
                "model_spec": {
                    "name": self._name,
                    "signature_name": "",
                    "version": str(model.version),
                },
                "metadata": {"signature_def": {"signature_def": model.metadata}},
            }
        )

    async def _status(self, request: Request) -> Response:
        params = request.path_params
        if ":" in request.url.path:  # of a request that is posted
            raise Refusal(405, _describe_malformed(request), {"Allow": "POST"})
        if params["name"] != self._name:
            raise Refusal(404, f"Could not find any versions of model {params['name']}")
        states = dict(self._versions.describe())
        if "version" in params:
            number = _read_version(params["version"])
            if number not in states:
                raise Refusal(404, f"Could not find version {number} of model {self._name}")
            states = {number: states[number]}
        return write_json(
            {
                "model_version_status": [
                    {
                        "version": str(number),
                        "state": state,
                        "status": {
                            "error_code": "UNKNOWN" if error else "OK",
                            "error_message": error,
                        },
                    }
                    for number, (state, error) in states.items()
                ]
            }
        )

    async def _label(self, request: Request) -> Response:
        raise Refusal(404, "versions have no labels here: name one by its number, versions/N")

    # ------------------------------------------------------------ the Open Inference Protocol

    async def _server(self, request: Request) -> Response:
        return write_json({"name": "tl_toolkit", "version": __version__, "extensions": []})

    async def _live(self, request: Request) -> Response:
        return write_json({"live": True})

    async def _ready(self, request: Request) -> Response:
        return write_json({"ready": True})

    async def _model(self, request: Request) -> Response:
        return write_json(inference.describe_model(self._find(request), self._name))

    async def _model_ready(self, request: Request) -> Response:
        self._find(request)
        return write_json({"name": self._name, "ready": True})

    async def _infer(self, request: Request) -> Response:
        model = self._find(request)

        def read(body: bytearray) -> rest.Call:
            return inference.read_infer(rest.read_body(body), model)

        def write(call: rest.Call, outputs: Any) -> Any:
            return inference.write_infer(outputs, call, name=self._name, version=model.version)

        return await self._run(request, model, read, write)

    # ------------------------------------------------------------ what both share

    def _find(self, request: Request, lacking: str = "there is no model {}") -> ServedModel:
        """Returns the model that a path names."""
        params, model = request.path_params, self._versions.model
        wanted = params.get("version")
        if params["name"] != self._name or (
            wanted is not None and _read_version(wanted) != model.version
        ):
            kind = f"Latest({params['name']})"
            if wanted is not None:
                kind = f"Specific({params['name']}, {wanted})"
            raise Refusal(404, lacking.format(kind))
        return model

    async def _run(
        self,
        request: Request,
        model: ServedModel,
        read: Callable[[bytearray], rest.Call],
        write: Callable[[rest.Call, Any], Any],
    ) -> Response:
        """Reads a request, asks the model, and writes the answer."""
        if self._batcher is None:
            raise RuntimeError("the server has not started")
        async with self._bodies.reading(request) as body:
            call = await self._bodies.convert(len(body), read, body)
            body.clear()
            outputs = await self._batcher.answer(
                model, call.signature, call.inputs, timeout=self._settings.timeout_seconds
            )
            size = sum(map(count_bytes, outputs.values()))
            return await self._bodies.convert(size, lambda: write_json(write(call, outputs)))

    async def _metrics(self, request: Request) -> Response:
        return Response(self._monitor.render(), media_type=CONTENT_TYPE_LATEST)

    async def _page(self, request: Request) -> Response:
        page = render_page(self._name, has_token=bool(self._settings.token))
        return Response(page, media_type="text/html", headers=PAGE_HEADERS)


def _describe_malformed(request: Request) -> str:
    return f"Malformed request: {request.method} {request.url.path}"


def _read_version(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Refusal(400, f"Failed to convert version: {text[:40]} to numeric.")
    return int(text)
