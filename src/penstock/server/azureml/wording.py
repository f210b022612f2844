"""How Azure's model inference API words failures."""

import logging
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.errors import HttpError, Wording

logger = logging.getLogger(__name__)

BLOCKED = "content_filter"
WRONG_TASK = "wrong_task"
EXTRA_PARAMETERS = "extra_parameters"

_BAD_REQUESTS = (BLOCKED, WRONG_TASK, EXTRA_PARAMETERS)
"""What is answered with 400; whatever else is wrong with a request is answered with 422."""


class AzureErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. `details` locate it, where a field of the body is at fault."""

    code: str
    status: int
    message: str
    details: dict[str, list[str]] | UnsetType = UNSET


class AzureError(msgspec.Struct, frozen=True):
    """The body of every answer that is no success."""

    error: AzureErrorDetail


def _status(error: HttpError) -> int:
    is_invalid = error.status == 400 and error.detail.code not in _BAD_REQUESTS
    return 422 if is_invalid else error.status


def _body(error: HttpError) -> bytes:
    status, detail = _status(error), error.detail
    code = "Invalid input" if status == 422 else detail.code or detail.type
    details: Any = {"loc": ["body", detail.param]} if detail.param else UNSET
    return msgspec.json.encode(
        AzureError(AzureErrorDetail(code=code, status=status, message=str(error), details=details))
    )


def _nothing(error: HttpError) -> bytes:
    logger.warning("/score answers {} with status 200, since it failed: %s", error)
    return b"{}"


AZURE_WORDING = Wording(body=_body, schema=AzureError, status=_status, also=(400,))

LEGACY_SCORE_WORDING = Wording(body=_nothing, schema=AzureError, status=lambda error: 200)
"""Azure's own images answer every failure of /score so; see `ServerSettings.legacy_score`."""
