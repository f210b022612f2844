"""Whatever the OpenAPI document allows, and much that it does not, is answered as it says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from penstock.server.app import create_app
from penstock.server.routes import DIALECTS
from penstock.server.settings import ServerSettings
from tests.server.scripted_llm import ScriptedLLM

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def application():
    every = tuple(dialect.name for dialect in DIALECTS)
    return create_app(ScriptedLLM(), ServerSettings(dialects=every))


document = schemathesis.openapi.from_asgi("/openapi.json", application()).exclude(
    path="/live/steps"  # its answer never ends
)


@document.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_finds_a_server_error_or_an_undocumented_answer(case):
    case.call_and_validate(checks=CHECKS)
