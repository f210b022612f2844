"""The official `openai` client against `penstock serve` and the embedded model."""

import pytest

from tests.server.openai_contract import OpenAIContract


class TestPenstockServe(OpenAIContract):
    @pytest.fixture
    def base_url(self, served):
        return served.url
