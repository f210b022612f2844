"""What the official `openai` client finds at any Penstock server, whatever model it serves.

A test module makes a subclass whose name begins with Test, and a fixture `base_url` of any scope.
"""

import openai
import pytest

PROMPT = "def fibonacci(n):"
MESSAGES = [{"role": "user", "content": "Say hello."}]


def has_chat(client, model):
    try:
        client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=1)
    except openai.BadRequestError as error:
        assert "no chat template" in error.message
        return False
    return True


class OpenAIContract:
    @pytest.fixture
    def client(self, base_url):
        with openai.OpenAI(base_url=f"{base_url}/v1", api_key="any", max_retries=0) as client:
            yield client

    @pytest.fixture
    def model(self, client):
        (card,) = client.models.list()
        return card.id

    @pytest.fixture
    def chat(self, client, model):
        if not has_chat(client, model):
            pytest.skip("the model has no chat template")
        return client.chat.completions

    def test_the_model_is_listed_and_described(self, client, model):
        card = client.models.retrieve(model)
        assert (card.id, card.object) == (model, "model")

    def test_a_completion_has_text_a_reason_to_end_and_usage(self, client, model):
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=8)
        (choice,) = answer.choices
        assert choice.text
        assert choice.finish_reason in ("stop", "length")
        assert answer.object == "text_completion"
        usage = answer.usage
        assert 0 < usage.completion_tokens <= 8
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens

    def test_a_streamed_completion_is_the_whole_one_in_pieces(self, client, model):
        options = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        whole = client.completions.create(**options)
        chunks = list(
            client.completions.create(
                **options, stream=True, stream_options={"include_usage": True}
            )
        )
        *pieces, last = chunks
        assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
        assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
        assert all(piece.usage is None for piece in pieces)
        assert last.choices == []
        assert last.usage.completion_tokens == whole.usage.completion_tokens

    def test_every_chunk_of_a_stream_may_count_its_tokens(self, client, model):
        asked = {"include_usage": True, "continuous_usage_stats": True}
        options = {"model": model, "prompt": PROMPT, "max_tokens": 6, "stream_options": asked}
        counts = [
            chunk.usage.completion_tokens
            for chunk in client.completions.create(**options, stream=True)
        ]
        assert counts == sorted(counts) and 0 < counts[0] <= counts[-1] <= 6

    def test_three_completions_are_three_choices(self, client, model):
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=4, n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        stream = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=4, n=3, stream=True
        )
        assert {choice.index for chunk in stream for choice in chunk.choices} == {0, 1, 2}

    def test_several_prompts_are_answered_in_their_order(self, client, model):
        answer = client.completions.create(
            model=model, prompt=[PROMPT, "import os", "class A:"], max_tokens=2, echo=True
        )
        starts = [PROMPT, "import os", "class A:"]
        assert all(c.text.startswith(s) for c, s in zip(answer.choices, starts, strict=True))

    def test_token_ids_are_a_prompt(self, client, model):
        answer = client.completions.create(model=model, prompt=[65, 66, 67], max_tokens=2)
        assert answer.usage.prompt_tokens == 3

    def test_a_stop_string_ends_the_text_before_it(self, client, model):
        options = {"model": model, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
        text = client.completions.create(**options).choices[0].text
        stop = text[len(text) // 2 :][:3]
        (choice,) = client.completions.create(**options, stop=[stop]).choices
        assert choice.text == text[: text.index(stop)]
        assert choice.finish_reason == "stop"
        chunks = client.completions.create(**options, stop=stop, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text

    def test_logprobs_belong_to_the_tokens_of_the_text(self, client, model):
        answer = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3, echo=True
        )
        (choice,) = answer.choices
        logprobs = choice.logprobs
        count = answer.usage.total_tokens
        assert len(logprobs.tokens) == len(logprobs.text_offset) == count
        assert logprobs.token_logprobs[0] is None
        assert all(value <= 0 for value in logprobs.token_logprobs[1:])
        assert all(3 <= len(top) <= 4 for top in logprobs.top_logprobs[1:])
        assert logprobs.text_offset == sorted(logprobs.text_offset)
        assert logprobs.text_offset[answer.usage.prompt_tokens] == len(PROMPT)

    def test_the_same_seed_gives_the_same_text(self, client, model):
        def text(seed):
            answer = client.completions.create(
                model=model, prompt=PROMPT, max_tokens=12, temperature=1.0, seed=seed
            )
            return answer.choices[0].text

        assert text(7) == text(7)

    def test_options_beyond_openai_s_pass_through_extra_body(self, client, model):
        answer = client.completions.create(
            model=model,
            prompt=PROMPT,
            max_tokens=4,
            extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1, "priority": 1},
        )
        assert answer.choices

    def test_a_chat_has_an_answer(self, chat, model):
        answer = chat.create(model=model, messages=MESSAGES, max_completion_tokens=8, user="me")
        (choice,) = answer.choices
        assert choice.message.role == "assistant"
        assert isinstance(choice.message.content, str)
        assert choice.finish_reason in ("stop", "length")
        assert answer.usage.completion_tokens <= 8

    def test_a_streamed_chat_is_the_whole_one_in_pieces(self, chat, model):
        options = {"model": model, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        whole = chat.create(**options).choices[0]
        chunks = list(chat.create(**options, stream=True, stream_options={"include_usage": True}))
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == whole.message.content
        assert chunks[-2].choices[0].finish_reason == whole.finish_reason
        assert chunks[-1].usage.completion_tokens > 0

    def test_the_streaming_helper_assembles_a_chat(self, chat, model):
        options = {"model": model, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        with chat.stream(**options) as stream:
            try:
                final = stream.get_final_completion()
            except openai.LengthFinishReasonError as error:
                final = error.completion
        (choice,) = chat.create(**options).choices
        assert final.choices[0].message.content == choice.message.content

    def test_chat_logprobs_name_tokens_bytes_and_likeliest(self, chat, model):
        answer = chat.create(
            model=model, messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=2
        )
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens
        for entry in content:
            assert entry.logprob <= 0
            assert entry.bytes is not None
            assert len(entry.top_logprobs) == 2

    def test_an_unknown_model_is_not_found(self, client):
        with pytest.raises(openai.NotFoundError) as raised:
            client.completions.create(model="no-such-model", prompt=PROMPT)
        assert raised.value.code == "model_not_found"

    def test_an_unknown_field_is_a_bad_request_that_names_it(self, client, model):
        with pytest.raises(openai.BadRequestError) as raised:
            client.completions.create(model=model, prompt=PROMPT, extra_body={"temprature": 1.0})
        assert raised.value.param == "temprature"
        assert "Did you mean temperature?" in raised.value.message

    def test_too_long_a_prompt_is_a_bad_request_with_openai_s_code(self, client, model):
        with pytest.raises(openai.BadRequestError) as raised:
            client.completions.create(model=model, prompt="one two " * 20_000)
        assert raised.value.code == "context_length_exceeded"

    def test_tools_are_refused_and_not_forgotten(self, client, model):
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        with pytest.raises(openai.BadRequestError, match="Tools cannot be offered"):
            client.chat.completions.create(model=model, messages=MESSAGES, tools=[tool])
