"""What huggingface_hub's `InferenceClient` finds at any Penstock server, whatever model it serves.

A test module makes a subclass whose name begins with Test, and a fixture `base_url` of any scope.
"""

import contextlib
import json

import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import ValidationError

PROMPT = "def fibonacci(n):"
MESSAGES = [{"role": "user", "content": "Say hello."}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@contextlib.contextmanager
def asking(url):
    """A client that leaves no connection behind."""
    with InferenceClient(url, token="none") as client:
        yield client
    close_session()


class TgiContract:
    @pytest.fixture
    def client(self, base_url):
        with asking(base_url) as client:
            yield client

    def test_a_text_is_continued(self, client):
        text = client.text_generation(PROMPT, max_new_tokens=8, return_full_text=False)
        assert text
        full = client.text_generation(PROMPT, max_new_tokens=8)
        assert full == PROMPT + text

    def test_details_tell_tokens_and_the_reason_to_end(self, client):
        output = client.text_generation(
            PROMPT, max_new_tokens=8, return_full_text=False, details=True, top_n_tokens=2
        )
        details = output.details
        assert details.finish_reason in ("length", "eos_token")
        assert 0 < len(details.tokens) == details.generated_tokens <= 8
        assert details.seed is None
        shown = "".join(token.text for token in details.tokens if not token.special)
        assert shown == output.generated_text
        assert all(len(tops) == 2 for tops in details.top_tokens)
        for token, tops in zip(details.tokens, details.top_tokens, strict=True):
            assert token.id == tops[0]["id"]  # the client leaves lists in lists as they are

    def test_the_prompt_s_tokens_are_told(self, client):
        output = client.text_generation(
            PROMPT, max_new_tokens=1, details=True, decoder_input_details=True
        )
        first, *others = output.details.prefill
        assert first.logprob is None
        assert all(token.logprob <= 0 for token in others)
        assert PROMPT in "".join(token.text for token in output.details.prefill)

    def test_a_stream_is_the_whole_answer_token_by_token(self, client):
        options = {"max_new_tokens": 12, "return_full_text": False}
        whole = client.text_generation(PROMPT, **options)
        events = list(client.text_generation(PROMPT, **options, details=True, stream=True))
        assert [event.index for event in events] == list(range(1, len(events) + 1))
        assert events[-1].generated_text == whole
        assert events[-1].details.generated_tokens == len(events)
        assert all(event.generated_text is None for event in events[:-1])
        pieces = client.text_generation(PROMPT, **options, stream=True)
        assert "".join(pieces) == whole

    def test_a_seed_that_was_reported_gives_the_same_text_again(self, client):
        options = {"max_new_tokens": 12, "temperature": 1.5, "details": True}
        first = client.text_generation(PROMPT, **options)
        again = client.text_generation(PROMPT, **options, seed=first.details.seed)
        assert again.generated_text == first.generated_text

    def test_the_best_of_two_comes_with_the_other(self, client):
        output = client.text_generation(
            PROMPT, max_new_tokens=4, do_sample=True, best_of=2, details=True
        )
        [other] = output.details.best_of_sequences
        assert _mean(output.details.tokens) >= _mean(other.tokens)

    def test_a_stop_string_ends_the_text_and_stays_in_it(self, client):
        text = client.text_generation(PROMPT, max_new_tokens=12, return_full_text=False)
        stop = text[2:4]
        output = client.text_generation(
            PROMPT, max_new_tokens=12, return_full_text=False, stop=[stop], details=True
        )
        assert output.generated_text == text[: text.index(stop) + len(stop)]
        assert output.details.finish_reason == "stop_sequence"

    def test_what_is_wrong_is_a_validation_error(self, client):
        with pytest.raises(ValidationError, match="`top_p` must be"):
            client.text_generation(PROMPT, top_p=2.0)

    def test_a_conversation_is_continued_whole_and_as_a_stream(self, client):
        options = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
        whole = client.chat_completion(**options).choices[0].message.content
        chunks = client.chat_completion(**options, stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert "".join(piece or "" for piece in pieces) == whole


class GrammarContract:
    """Of an engine that follows grammars."""

    @pytest.fixture
    def client(self, base_url):
        with asking(base_url) as client:
            yield client

    def test_a_text_follows_a_regex(self, client):
        grammar = {"type": "regex", "value": "[0-9]{3}"}
        text = client.text_generation(PROMPT, grammar=grammar, return_full_text=False)
        assert len(text) == 3 and text.isdigit()

    def test_a_text_follows_a_schema(self, client):
        grammar = {"type": "json", "value": SCHEMA}
        text = client.text_generation(PROMPT, grammar=grammar, return_full_text=False)
        assert isinstance(json.loads(text)["ok"], bool)

    def test_a_chat_follows_a_schema(self, client):
        asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        answer = client.chat_completion(messages=MESSAGES, response_format=asked, max_tokens=64)
        assert isinstance(json.loads(answer.choices[0].message.content)["ok"], bool)


def _mean(tokens) -> float:
    return sum(token.logprob for token in tokens) / len(tokens)
