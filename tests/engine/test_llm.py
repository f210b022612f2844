"""`LLM`, as a user's script meets it, with the embedded model."""

import pytest

import penstock
from penstock import LLM, SamplingParams
from penstock.vocabulary.errors import (
    ContextTooLong,
    InvalidRequest,
    ModelError,
    SettingsError,
)
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.watermark import Watermark

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def llm():
    return LLM(kv_cache_gib=0.2)


def test_results_come_in_the_order_of_the_prompts(llm):
    prompts = ["import os\n", {"prompt_token_ids": llm.tokenizer.encode("class A:")}, "x = 1\n"]
    results = llm.generate(prompts, GREEDY)
    assert [result.prompt for result in results] == ["import os\n", None, "x = 1\n"]
    for result in results:
        [output] = result.outputs
        assert output.text == llm.tokenizer.decode(output.token_ids)
        assert (len(output.token_ids), output.finish_reason) == (12, "length")
        assert result.finished


def test_each_prompt_may_have_its_own_options(llm):
    options = [SamplingParams(max_tokens=1), SamplingParams(max_tokens=3, n=2, ignore_eos=True)]
    first, second = llm.generate(["a", "b"], options)
    assert [len(output.token_ids) for output in first.outputs] == [1]
    assert [len(output.token_ids) for output in second.outputs] == [3, 3]


def test_one_prompt_need_not_be_a_list(llm):
    [result] = llm.generate("import os", GREEDY)
    assert result.outputs[0].text


def test_without_options_the_models_own_defaults_hold(llm):
    params = llm.default_sampling_params(max_tokens=5)
    assert {name: getattr(params, name) for name in llm.sampling_defaults} == llm.sampling_defaults
    assert llm.generate("import os")[0].finished


def test_a_stop_string_ends_the_text_before_it_even_across_tokens(llm):
    [plain] = llm.generate("def f(x):", GREEDY)
    text = plain.outputs[0].text
    stop = text[4:7]
    [stopped] = llm.generate("def f(x):", SamplingParams(temperature=0, max_tokens=12, stop=stop))
    output = stopped.outputs[0]
    assert output.text == text[: text.index(stop)]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    kept = SamplingParams(temperature=0, max_tokens=12, stop=stop, include_stop_str_in_output=True)
    assert llm.generate("def f(x):", kept)[0].outputs[0].text.endswith(stop)
    assert not llm.engine.has_work


def test_no_stop_string_counts_before_min_tokens(llm):
    [plain] = llm.generate("def f(x):", GREEDY)
    token_ids = plain.outputs[0].token_ids
    early = llm.tokenizer.decode(token_ids[:1])
    options = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "stop": early}
    [held] = llm.generate("def f(x):", SamplingParams(**options, min_tokens=12))
    assert held.outputs[0].token_ids == token_ids
    [ended] = llm.generate("def f(x):", SamplingParams(**options))
    assert ended.outputs[0].token_ids == token_ids[:1]


def test_what_is_refused_late_concerns_no_other_stream(llm):
    late = Grammar.regex("a" * 60 + r"(\w{1,1000}){1,1000}")
    [expected] = llm.generate("import ", GREEDY)
    constrained = llm.stream("x = ", SamplingParams(max_tokens=500, seed=1, grammar=late))
    assert next(constrained).text.startswith("a")
    assert "".join(delta.text for delta in llm.stream("import ", GREEDY)) == (
        expected.outputs[0].text
    )
    with pytest.raises(InvalidRequest, match="grammar: "):
        list(constrained)
    assert not llm.engine.has_work


def test_a_stream_is_the_whole_text_in_pieces(llm):
    [whole] = llm.generate("import ", GREEDY)
    deltas = list(llm.stream("import ", GREEDY))
    assert "".join(delta.text for delta in deltas) == whole.outputs[0].text
    assert deltas[-1].finish_reason == "length"
    assert len(deltas) > 1


def test_streams_may_be_interleaved_with_other_work(llm):
    [expected] = llm.generate("import ", GREEDY)
    stream = llm.stream("import ", GREEDY)
    first = next(stream)
    llm.generate(["x = ", "y = "], GREEDY)
    assert first.text + "".join(delta.text for delta in stream) == expected.outputs[0].text


def test_closing_a_stream_frees_what_it_held(llm):
    stream = llm.stream("import ", SamplingParams(max_tokens=500, ignore_eos=True))
    next(stream)
    stream.close()
    assert not llm.engine.has_work and llm.engine.stats().num_blocks_used == 0


def test_logprobs_come_with_the_tokens_and_for_the_prompt(llm):
    params = SamplingParams(max_tokens=3, logprobs=2, prompt_logprobs=1, ignore_eos=True)
    [result] = llm.generate("import os\n", params)
    [output] = result.outputs
    assert [entry.token_id for entry in output.logprobs] == output.token_ids
    assert all(len(entry.top) == 2 for entry in output.logprobs)
    assert result.prompt_logprobs[0] is None
    read = [entry.token_id for entry in result.prompt_logprobs[1:]]
    assert read == result.prompt_token_ids[1:]


def test_a_conversation_is_answered(llm):
    messages = [{"role": "user", "content": "What does os.getcwd do?"}]
    [result] = llm.chat(messages, GREEDY)
    assert "os.getcwd" in result.prompt and result.outputs[0].text


def test_a_seed_makes_the_text_repeatable(llm):
    params = SamplingParams(seed=3, max_tokens=10, ignore_eos=True)
    first, second = (llm.generate("import ", params)[0].outputs[0].text for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("prompts", "params", "error", "words"),
    [
        ("", GREEDY, InvalidRequest, "prompt is empty"),
        ({"prompt_token_ids": []}, GREEDY, InvalidRequest, "prompt is empty"),
        ({"prompt_token_ids": [10**6]}, GREEDY, InvalidRequest, "token id 1000000"),
        ({"prompt_token_ids": [-1]}, GREEDY, InvalidRequest, "token id -1"),
        ([3], GREEDY, InvalidRequest, "cannot be of type int"),
        ({"prompt_token_ids": [5] * 5000}, GREEDY, ContextTooLong, "maximum context length"),
        ("a", SamplingParams(max_tokens=2048), ContextTooLong, "2049|2050"),
        (["a", "b"], [GREEDY], InvalidRequest, "2 prompts but 1 sampling_params"),
        ("a", SamplingParams(stop_token_ids=[10**6]), InvalidRequest, "stop_token_ids"),
        ("a", SamplingParams(logit_bias={10**6: 1}), InvalidRequest, "logit_bias"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_computed(
    llm, prompts, params, error, words
):
    steps = llm.engine.stats().num_steps
    with pytest.raises(error, match=words):
        llm.generate(prompts, params)
    assert llm.engine.stats().num_steps == steps and not llm.engine.has_work


@pytest.mark.parametrize("value", [Watermark(gamma=1.5), Grammar(kind="poem")])
def test_an_option_that_was_made_with_values_that_cannot_be_is_refused(value):
    name = type(value).__name__.lower()
    with pytest.raises(InvalidRequest, match=name):
        SamplingParams(**{name: value})


def test_misspelt_settings_and_missing_models_are_named():
    with pytest.raises(SettingsError, match="Did you mean token_budget"):
        LLM(token_buget=5)
    with pytest.raises(ModelError, match="/no/such/place"):
        LLM("/no/such/place")


def test_the_package_imports_no_torch_until_an_engine_is_asked_for():
    assert penstock.LLM is LLM
    with pytest.raises(AttributeError, match="nothing"):
        _ = penstock.nothing
