"""The service as one ASGI application, and the server that runs it. Nothing is made at import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.logs import configure_logs
from app.middleware import Gate, Requests
from app.requests import add_error_handlers
from app.routes import ask, conversations, docs, documents, openai, operations
from app.routes.shared import Busy
from app.schemas import ProblemDetails
from app.services import Services, build_services
from app.settings import ServiceSettings

WEB = Path(__file__).parent / "web"

DESCRIPTION = (
    "Answers from an organisation's documents, with citations. Offsets count Unicode code points. Errors are RFC 9457 "
    "problem details, OpenAI's error object under /v1/chat and /v1/models, and in a stream that has begun its last event. "
    "Every response has an X-Request-ID, which the log has too."
)

GRACEFUL_SHUTDOWN_S = 20


def create_app(settings: ServiceSettings, services: Services | None = None) -> FastAPI:
    """The application. Its lifespan starts and closes `services`, which are built from the settings if not given."""
    composed = build_services(settings) if services is None else services

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            await composed.start()
            yield
        finally:
            await composed.close()

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
    app.state.services = composed
    app.state.busy = Busy()
    for router in (ask.router, openai.router, conversations.router, documents.router, operations.router, docs.router):
        app.include_router(router)
    app.frontend("/", directory=WEB, fallback=None, check_dir=True)
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(Gate, server=settings.server)
    app.add_middleware(Requests, metrics=composed.metrics)
    _describe(app)
    return app


def serve(settings: ServiceSettings) -> None:
    """Run the service until it is told to stop. One process: what is busy and what is in use is known to it alone."""
    configure_logs()
    uvicorn.run(
        create_app(settings),
        host=settings.server.host.strip("[]"),
        port=settings.server.port,
        workers=1,
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


def _describe(app: FastAPI) -> None:
    """Give the OpenAPI document the schema of a problem, and take out the framework's own, which nothing here sends."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = document["components"]["schemas"]
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            _, described = models_json_schema([(ProblemDetails, "serialization")])
            schemas |= described["$defs"]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
