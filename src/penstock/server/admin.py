"""Routes for whoever runs the server: see what is running, end it, drain.

They exist where there is an admin key, or no key at all and only this machine to come from.
"""

from fastapi import Request, Response
from msgspec import Struct, json

from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.visit import visit_of


class RunningRequest(Struct, frozen=True):
    """One HTTP request being answered; `key` is the name of the API key that it came with."""

    request_id: str
    route: str
    key: str | None
    age_s: float
    prompt_tokens: int
    generated_tokens: int


class RunningRequests(Struct, frozen=True):
    """All of them, the oldest first."""

    requests: list[RunningRequest]


class Cancelled(Struct, frozen=True):
    """How many requests had this id."""

    cancelled: int


class Draining(Struct, frozen=True):
    """How many requests are still to be answered."""

    num_open: int


class Done(Struct, frozen=True):
    """It was done."""

    done: bool = True


async def show_requests(front: Front, request: Request) -> Response:
    """Lists the requests being answered, but for this one."""
    others = sorted(front.visits - {visit_of(request.scope)}, key=lambda visit: visit.arrived)
    return _json(
        RunningRequests(
            [
                RunningRequest(
                    visit.request_id,
                    visit.route,
                    visit.key_name,
                    round(visit.age_s, 3),
                    visit.num_prompt_tokens,
                    visit.num_generated_tokens,
                )
                for visit in others
            ]
        )
    )


async def cancel_request(front: Front, request: Request) -> Response:
    """Ends a request, by the id that its answer and the log show; its client is told."""
    request_id = request.path_params["request_id"]
    found = [visit for visit in front.visits if visit.request_id == request_id]
    if not found:
        raise HttpError(404, f"No request {request_id} is running.", code="request_not_found")
    for visit in found:
        visit.cancel()
    return _json(Cancelled(len(found)))


async def drain(front: Front, request: Request) -> Response:
    """Has the server finish its work, take no more, and leave, as SIGTERM does."""
    front.drain()
    return _json(Draining(front.num_open - 1))


async def reset_prefix_cache(front: Front, request: Request) -> Response:
    """Forgets all cached prefixes. What is running is not disturbed."""
    front.llm.reset_prefix_cache()
    return _json(Done())


def _json(answer: Struct) -> Response:
    return Response(json.encode(answer), media_type="application/json")


ADMIN = (
    Endpoint("GET", "/admin/requests", show_requests, answer=RunningRequests, admin=True),
    Endpoint(
        "DELETE", "/admin/requests/{request_id}", cancel_request, answer=Cancelled, admin=True
    ),
    Endpoint("POST", "/admin/drain", drain, answer=Draining, admin=True),
    Endpoint("POST", "/admin/reset_prefix_cache", reset_prefix_cache, answer=Done, admin=True),
)
