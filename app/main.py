"""The service as one ASGI application, and the server that runs it. Nothing is made at import."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.listening import bound_socket
from app.logs import configure_logs
from app.middleware import Gate, Requests
from app.reload import Current, Origin, Reloader
from app.requests import add_error_handlers
from app.routes import ask, conversations, docs, documents, ingest, openai, operations, snapshots, uploads
from app.routes.shared import Busy
from app.runs import Runs
from app.schemas import ProblemDetails
from app.services import Services, build_services
from app.settings import ServerSettings, ServiceSettings
from app.uploads import Uploads
from corpus.errors import ArchivistError, ConfigError

WEB = Path(__file__).parent / "web"

DESCRIPTION = (
    "Answers from an organisation's documents, with citations. Offsets count Unicode code points. Errors are RFC 9457 "
    "problem details, OpenAI's error object under /v1/chat and /v1/models, and in a stream that has begun its last event. "
    "Every response has an X-Request-ID, which the log has too."
)

GRACEFUL_SHUTDOWN_S = 20
MAX_HEADER_BYTES = 65_536


def create_app(settings: ServiceSettings, services: Services | None = None, origin: Origin | None = None) -> FastAPI:
    """The application. Its lifespan starts and closes `services`, which are built from the settings if not given.

    With `origin` the configuration is watched, and what may change while it serves does.
    """
    current = Current(build_services(settings) if services is None else services)
    reloader = None if origin is None else Reloader(current, origin)
    uploaded = Uploads(settings.data_dir)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            await current.services.start()
            await current.services.compute(uploaded.tidy)
            async with _running(reloader):
                yield
        finally:
            await current.close()

    # docs_url and redoc_url would load their scripts from a CDN; routes/docs.py renders the document itself.
    app = FastAPI(
        title="Archivist",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.current, app.state.reloader = current, reloader
    app.state.busy = Busy()
    app.state.runs = Runs(settings.data_dir) if origin is None else Runs(settings.data_dir, origin.ingest, origin.tell)
    app.state.uploads = uploaded
    for room in (ask, openai, conversations, documents, uploads, ingest, snapshots, operations, docs):
        app.include_router(room.router)
    app.frontend("/", directory=WEB, fallback=None, check_dir=True)
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(Gate, server=settings.server)
    app.add_middleware(Requests, current=current)
    _describe(app, needs_key=settings.server.api_key is not None)
    return app


@asynccontextmanager
async def _running(reloader: Reloader | None) -> AsyncIterator[None]:
    """The reloader at work; SIGHUP makes it look at once, for folders that do not tell of changes."""
    if reloader is None:
        yield
        return
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(reloader.run())
    by_hand: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        by_hand.add(asyncio.create_task(_reloaded(reloader)))

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        if in_main_thread:
            loop.remove_signal_handler(signal.SIGHUP)
        for task in (watching, *by_hand):
            task.cancel()
        await asyncio.gather(watching, *by_hand, return_exceptions=True)


async def _reloaded(reloader: Reloader) -> None:
    with suppress(ConfigError):  # told by the reloader
        await reloader.reload()


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was made until here lives as long as the process. A full collection would walk half a million objects of the
        # model's library, and nothing is answered meanwhile: measured, 250 to 500 ms.
        gc.freeze()
        gc.enable()
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def serve(
    settings: ServiceSettings, on_ready: Callable[[str], None] = lambda address: None, origin: Origin | None = None
) -> None:
    """Run the service until it is told to stop; `on_ready` is told the address once it listens.

    With `origin` the configuration is watched.

    One process: what is busy and what is in use is known to it alone.
    Raises: ConfigError (the address is taken, too), EmbedderError, StateError; ArchivistError where it could not start.
    """
    gc.disable()
    with closing(bound_socket(settings.server.host, settings.server.port)) as listener:
        configure_logs()
        server = _Server(server_config(create_app(settings, origin=origin), settings.server), on_ready)
        server.run(sockets=[listener])
    if not server.started:
        raise ArchivistError("the service did not start; the log says why")


def server_config(app: FastAPI, server: ServerSettings) -> uvicorn.Config:
    """How the HTTP server is run."""
    return uvicorn.Config(
        app,
        host=server.host.strip("[]"),
        port=server.port,
        workers=1,
        # httptools is faster by a fraction of a millisecond, but takes request headers without end.
        http="h11",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )


def _version() -> str:
    try:
        return version("archivist")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"


def _describe(app: FastAPI, needs_key: bool) -> None:
    """Give the OpenAPI document the schema of a problem, and take out the framework's own, which nothing here sends."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _take_out_unsent(document)
            _state_security(document, needs_key)
            schemas = document["components"]["schemas"]
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            _, described = models_json_schema([(ProblemDetails, "serialization")])
            schemas |= described["$defs"]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _take_out_unsent(document: dict[str, Any]) -> None:
    # Under OpenAI's paths an invalid request is 400, as its clients expect; the framework states its 422 all the same.
    for item in document["paths"].values():
        for call in item.values():
            if "HTTPValidationError" in str(call["responses"].get("422", "")):
                del call["responses"]["422"]


def _state_security(document: dict[str, Any], needs_key: bool) -> None:
    # An empty requirement among the alternatives says that the key may be left out.
    for item in document["paths"].values():
        for call in item.values():
            if "security" in call and not needs_key:
                call["security"].append({})
