"""The application: routes, and the layers around them."""

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

import penstock
from penstock.server.auth import Auth
from penstock.server.body_limit import BodyLimit
from penstock.server.endpoint import Endpoint
from penstock.server.engine_front import EngineFront
from penstock.server.errors import routing_error
from penstock.server.exchange import Exchange
from penstock.server.front import Front
from penstock.server.metrics import Metrics
from penstock.server.openapi import DescribedApp, operation
from penstock.server.routes import routes_of
from penstock.server.routing import Wordings, meant, sharing, wording_of
from penstock.server.settings import ServerSettings


def create_app(llm: EngineFront, settings: ServerSettings) -> DescribedApp:
    """A server of `llm`, for any ASGI server to run."""
    return app_around(Front(llm, settings, Metrics(lambda: llm.stats)))


def app_around(front: Front) -> DescribedApp:
    """The application of a front that somebody else steers too, as `serve` does."""
    endpoints = routes_of(front.settings.dialects)
    app = DescribedApp(
        title="Penstock",
        version=penstock.__version__,
        docs_url=None,  # FastAPI's pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Exchange, front, Wordings(endpoints)),
            Middleware(Auth, front.settings.api_keys),
            Middleware(BodyLimit, front.settings.max_body_bytes),
        ],
    )
    app.endpoints = endpoints
    app.add_exception_handler(HTTPException, _answer_routing_error)
    for sharers in sharing(endpoints):
        _add(app, sharers, front)
    return app


def _add(app: DescribedApp, endpoints: tuple[Endpoint, ...], front: Front) -> None:
    async def handle(request: Request) -> Response:
        endpoint = await meant(endpoints, request)
        request.scope["state"]["wording"] = endpoint.wording
        return await endpoint.handler(front, request)

    app.add_api_route(
        endpoints[0].path,
        handle,
        methods=[endpoints[0].method],
        response_model=None,
        summary=" ".join((endpoint.handler.__doc__ or "").strip() for endpoint in endpoints),
        openapi_extra=operation(endpoints),
    )


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return routing_error(request.method, request.url.path, error).response(
        wording_of(request.scope)
    )
