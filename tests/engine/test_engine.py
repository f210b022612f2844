"""What the engine hands out, besides the tokens."""

import math

import pytest
import torch

from penstock.vocabulary.messages import Cancel, FinishReason, PromptSlice, Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine, run, tokens
from tests.tiny_models import make_tiny_checkpoint

PROMPT = list(range(5, 45))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_tiny_checkpoint("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def oracle(model_dir):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)

    def log_probs(token_ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([token_ids])).logits[0].log_softmax(-1)

    return log_probs


def greedy(**options) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": 8, "ignore_eos": True, **options})


def test_greedy_tokens_are_those_of_transformers(model_dir, oracle):
    token_ids = continuation(make_engine(model_dir), PROMPT, greedy())
    expected = list(PROMPT)
    for _ in range(8):
        expected.append(int(oracle(expected)[-1].argmax()))
    assert token_ids == expected[len(PROMPT) :]


def test_logprobs_are_those_of_transformers(model_dir, oracle):
    outputs = run(make_engine(model_dir), {"r": (PROMPT, greedy(logprobs=3))})["r"][0]
    entries = [entry for output in outputs for entry in output.logprobs]
    assert len(entries) == 8
    log_probs = oracle(PROMPT + tokens(outputs))
    for position, entry in enumerate(entries, start=len(PROMPT) - 1):
        assert entry.logprob == pytest.approx(log_probs[position, entry.token_id].item(), abs=1e-4)
        assert entry.rank == 1 and len(entry.top) == 3


@pytest.mark.parametrize("token_budget", [9, 64])
def test_prompt_logprobs_cover_the_prompt_from_its_second_token(model_dir, oracle, token_budget):
    engine = make_engine(model_dir, token_budget=token_budget, max_num_seqs=2)
    outputs = run(engine, {"r": (PROMPT, greedy(prompt_logprobs=0, n=2))})["r"]
    entries = [entry for output in outputs[0] for entry in output.prompt_logprobs]
    assert [entry.token_id for entry in entries] == PROMPT[1:]
    expected = oracle(PROMPT)[:-1].gather(1, torch.tensor(PROMPT[1:]).unsqueeze(1)).squeeze(1)
    assert [entry.logprob for entry in entries] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(not output.prompt_logprobs for output in outputs[1])


def test_prompt_logprobs_are_handed_out_once_even_if_the_sequence_is_preempted(model_dir):
    engine = make_engine(
        model_dir, num_blocks=6, promise_tokens=2, token_budget=32, prefix_caching=False
    )
    mine = greedy(prompt_logprobs=0, max_tokens=30)
    outputs = run(engine, {"other": (PROMPT[:30], greedy(max_tokens=40)), "r": (PROMPT, mine)})
    assert engine.stats().num_preemptions > 0
    assert sum(len(output.prompt_logprobs) for output in outputs["r"][0]) == len(PROMPT) - 1


def test_logprobs_are_the_models_own_whatever_the_sampling_options(model_dir):
    plain = run(make_engine(model_dir), {"r": (PROMPT, greedy(logprobs=0, max_tokens=1))})
    [expected] = plain["r"][0][0].logprobs
    bent = greedy(
        logprobs=0, max_tokens=1, temperature=0.5, top_k=1, logit_bias={expected.token_id: 50}
    )
    [entry] = run(make_engine(model_dir), {"r": (PROMPT, bent)})["r"][0][0].logprobs
    assert entry.token_id == expected.token_id
    assert entry.logprob == pytest.approx(expected.logprob)


def test_max_tokens_ends_with_length_and_a_stop_token_with_its_id(model_dir):
    engine = make_engine(model_dir)
    outputs = run(engine, {"r": (PROMPT, greedy())})["r"][0]
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    third = tokens(outputs)[2]
    stopped = run(engine, {"r": (PROMPT, greedy(stop_token_ids=[third]))})["r"][0]
    assert tokens(stopped) == tokens(outputs)[:3]
    assert stopped[-1].finish_reason is FinishReason.STOP
    assert stopped[-1].stop_token_id == third


def test_the_models_end_of_text_ends_a_sequence_unless_ignored_or_too_early(model_dir):
    engine = make_engine(model_dir)
    plain = continuation(engine, PROMPT, greedy())
    engine.end_token_ids = frozenset({plain[3]})
    first = plain.index(plain[3])
    ended = run(engine, {"r": (PROMPT, greedy(ignore_eos=False))})["r"][0]
    assert tokens(ended) == plain[: first + 1]
    assert ended[-1].finish_reason is FinishReason.STOP and ended[-1].stop_token_id is None
    assert continuation(engine, PROMPT, greedy()) == plain
    held = continuation(engine, PROMPT, greedy(ignore_eos=False, min_tokens=6))
    assert len(held) >= 7 and plain[3] not in held[:6]


def test_the_context_ends_a_sequence_without_max_tokens(model_dir):
    engine = make_engine(model_dir)
    outputs = run(engine, {"r": (PROMPT, greedy(max_tokens=None))})["r"][0]
    assert len(PROMPT) + len(tokens(outputs)) == engine.max_model_len
    assert outputs[-1].finish_reason is FinishReason.LENGTH


def test_a_cancelled_request_frees_its_blocks_at_once(model_dir):
    engine = make_engine(model_dir)
    engine.add(Request(request_id="r", prompt_token_ids=PROMPT, sampling=greedy(n=3)))
    engine.step()
    assert engine.stats().num_blocks_used > 0
    engine.cancel(Cancel(request_id="r"))
    assert engine.stats().num_blocks_used == 0
    assert not engine.has_work


def test_cached_prompt_tokens_are_reported_with_the_first_token(model_dir):
    engine = make_engine(model_dir)
    for expected in (0, 32):
        outputs = run(engine, {"r": (PROMPT, greedy())})["r"][0]
        assert [output.num_cached for output in outputs] == [expected] + [None] * 7


def test_the_engines_seed_makes_requests_without_one_repeatable(model_dir):
    params = SamplingParams(max_tokens=10, ignore_eos=True)
    seeded = [continuation(make_engine(model_dir, seed=3), PROMPT, params) for _ in range(2)]
    assert seeded[0] == seeded[1]
    unseeded = [continuation(make_engine(model_dir), PROMPT, params) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_counters_count_each_token_once(model_dir):
    engine = make_engine(model_dir, prefix_caching=False)
    run(engine, {"a": (PROMPT, greedy()), "b": (PROMPT[:7], greedy())})
    stats = engine.stats()
    assert (stats.num_prompt_tokens, stats.num_generated_tokens) == (47, 16)
    assert stats.num_blocks_used == 0


@pytest.mark.parametrize(
    "rounded", [{"weights": "bfloat16"}, {"kv_dtype": "bfloat16"}, {"kv_dtype": "int8"}]
)
def test_rounded_numbers_stay_near_exact_ones(model_dir, oracle, rounded):
    engine = make_engine(model_dir, **rounded)
    outputs = run(engine, {"r": (PROMPT, greedy(prompt_logprobs=0))})["r"][0]
    entries = [entry for output in outputs for entry in output.prompt_logprobs]
    expected = oracle(PROMPT)[:-1].gather(1, torch.tensor(PROMPT[1:]).unsqueeze(1)).squeeze(1)
    errors = [abs(a.logprob - b) for a, b in zip(entries, expected.tolist(), strict=True)]
    assert max(errors) < 0.1 and math.isfinite(sum(errors))


def test_a_step_tells_what_it_took_of_its_budget_and_nothing_of_the_text(model_dir):
    engine = make_engine(model_dir, token_budget=32, max_num_seqs=4, prefix_caching=False)
    for name, prompt in {"long": PROMPT, "short": PROMPT[:10]}.items():
        engine.add(Request(request_id=name, prompt_token_ids=prompt, sampling=greedy(max_tokens=3)))
    told = []
    while engine.has_work:
        engine.step()
        told.append(engine.last_step)
    assert [(step.number, step.num_decoding, step.prompt_slices) for step in told[:3]] == [
        (1, 0, [PromptSlice(0, 32)]),
        (2, 0, [PromptSlice(0, 8), PromptSlice(1, 10)]),
        (3, 2, []),
    ]
    assert {step.token_budget for step in told} == {32}
    assert [step.num_running for step in told] == [1, 2, 2, 0]
    assert [step.num_waiting for step in told] == [1, 0, 0, 0]
    assert told[1].num_blocks_used > told[-1].num_blocks_used == 0
    assert all(step.duration_s > 0 for step in told)
    engine.step()
    assert engine.last_step is None
