"""POST /v1/watermark/detect."""

from typing import Annotated

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.prompts import off_loop_if_long
from penstock.text.watermark import detect
from penstock.vocabulary.watermark import Gamma, WatermarkReport


class DetectionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that somebody may have had from this server."""

    text: Annotated[str, Meta(description="The text, without its prompt.")]
    gamma: Gamma = 0.5
    model: Annotated[
        str | None, Meta(description="The served model's name, as /v1/models tells it.")
    ] = None


async def detect_watermark(front: Front, request: Request) -> Response:
    """Tells whether this server has watermarked a text: docs/watermark.md."""
    body = converted(parse_object(await request.body()), DetectionBody)
    front.check_model(body.model)
    key = front.llm.watermark_key
    if key is None:
        raise HttpError(
            400,
            "This server has no watermark key, so it knows no watermark.",
            code="unsupported_parameter",
        )

    def report() -> WatermarkReport:
        token_ids = front.llm.tokenizer.encode(body.text, add_special_tokens=False)
        return detect(token_ids, key, gamma=body.gamma)

    found = await off_loop_if_long(report, len(body.text))
    return Response(msgspec.json.encode(found), media_type="application/json")


DETECT_WATERMARK = Endpoint(
    "POST", "/v1/watermark/detect", detect_watermark, body=DetectionBody, answer=WatermarkReport
)
