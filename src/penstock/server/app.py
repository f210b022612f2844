"""The application: routes, and the layers around them."""

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import penstock
from penstock.server.admin import ADMIN
from penstock.server.admission import Admission
from penstock.server.auth import Auth, check_admin, is_loopback
from penstock.server.body_limit import BodyLimit
from penstock.server.endpoint import Endpoint
from penstock.server.engine_front import EngineFront
from penstock.server.errors import http_error_from, routing_error
from penstock.server.exchange import Exchange, request_id_of
from penstock.server.front import Front, front_of
from penstock.server.openapi import DescribedApp, operation
from penstock.server.routes import routes_of
from penstock.server.routing import Wordings, meant, sharing, wording_of
from penstock.server.settings import ServerSettings
from penstock.server.tgi.vertex import vertex_routes
from penstock.server.visit import visit_of


def create_app(llm: EngineFront, settings: ServerSettings) -> DescribedApp:
    """A server of `llm`, for any ASGI server to run."""
    return app_around(front_of(llm, settings))


def app_around(front: Front) -> DescribedApp:
    """The application of a front that somebody else steers too, as `serve` does."""
    endpoints = endpoints_of(front)
    app = DescribedApp(
        title="Penstock",
        version=penstock.__version__,
        docs_url=None,  # FastAPI's pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            *_cors(front.settings.cors_origins),
            Middleware(Exchange, front, Wordings(endpoints)),
            Middleware(Auth, front, endpoints),
            Middleware(
                BodyLimit, front.settings.max_body_bytes, front.settings.max_total_body_bytes
            ),
            Middleware(Admission, front, endpoints),
        ],
    )
    app.endpoints = endpoints
    app.add_exception_handler(HTTPException, _answer_routing_error)
    for sharers in sharing(endpoints):
        _add(app, sharers, front)
    return app


def endpoints_of(front: Front) -> tuple[Endpoint, ...]:
    """The routes of the dialects that are on, and those of admins where there may be any.

    A dialect's own routes of admins are there for an admin's key only: clients may ask for them in
    a way that any web page can make a browser ask.
    """
    routes = (
        *vertex_routes(front.settings),
        *(
            endpoint
            for endpoint in routes_of(front.settings.dialects)
            if front.keys.has_admin or not endpoint.admin
        ),
    )
    may_be_steered = front.keys.has_admin or (not front.keys and is_loopback(front.settings.host))
    return (*routes, *ADMIN) if may_be_steered else routes


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Closed unless opened: without an origin no header says that a page may read an answer."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    ]


def _add(app: DescribedApp, endpoints: tuple[Endpoint, ...], front: Front) -> None:
    async def handle(request: Request) -> Response:
        visit_of(request.scope).route = endpoints[0].path
        if endpoints[0].admin:
            check_admin(request.scope)
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
    failure = routing_error(request.method, request.url.path, error)
    return http_error_from(failure, request_id_of(request.scope)).response(
        wording_of(request.scope)
    )
