"""Texts marked by the engine are found by the detector; others are not."""

import pytest

import penstock
from penstock import LLM, SamplingParams
from penstock.text.watermark import THRESHOLD
from penstock.vocabulary.errors import InvalidRequest, SettingsError
from penstock.vocabulary.watermark import Watermark

KEY = "a secret"
PROMPTS = ("import os\n", "def read(path):\n", "class Stack:\n    def ", "# Sort a list\n")


@pytest.fixture(scope="module")
def llm():
    return LLM(kv_cache_gib=0.2, watermark_key=KEY)


def texts(llm: LLM, **options) -> list[str]:
    """Of 200 tokens each. The penalty keeps a greedy model of this size from saying one line again
    and again, of which every pair of tokens counts but once.
    """
    params = [
        SamplingParams(max_tokens=200, ignore_eos=True, frequency_penalty=1.0, seed=seed, **options)
        for seed in range(len(PROMPTS))
    ]
    return [result.outputs[0].text for result in llm.generate(PROMPTS, params, use_tqdm=False)]


def score(llm: LLM, text: str, gamma: float = 0.5) -> float:
    return penstock.detect_watermark(text, key=KEY, model=llm.tokenizer, gamma=gamma).z_score


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "drawn"])
def test_two_hundred_marked_tokens_are_found(llm, temperature):
    for text in texts(llm, temperature=temperature, watermark=True):
        assert score(llm, text) > THRESHOLD


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "drawn"])
def test_unmarked_text_is_not_taken_for_marked(llm, temperature):
    for text in texts(llm, temperature=temperature):
        assert score(llm, text) < THRESHOLD


def test_another_key_finds_nothing(llm):
    for text in texts(llm, temperature=1.0, watermark=True):
        report = penstock.detect_watermark(text, key="another", model=llm.tokenizer)
        assert not report.is_watermarked


def test_strength_is_the_clients_choice(llm):
    faint, strong = (
        texts(llm, temperature=1.0, watermark=Watermark(gamma=0.25, delta=delta))
        for delta in (0.5, 5.0)
    )
    for weak, firm in zip(faint, strong, strict=True):
        assert score(llm, weak, 0.25) < score(llm, firm, 0.25) > THRESHOLD


def test_a_marked_text_is_the_same_alone_and_in_company(llm):
    marked = SamplingParams(max_tokens=60, ignore_eos=True, seed=3, watermark=True)
    plain = SamplingParams(max_tokens=60, ignore_eos=True, seed=3)
    [alone] = llm.generate(PROMPTS[0], marked, use_tqdm=False)
    [unmarked] = llm.generate(PROMPTS[0], plain, use_tqdm=False)
    both = llm.generate([PROMPTS[0]] * 2, [plain, marked], use_tqdm=False)
    assert [each.outputs[0].token_ids for each in both] == [
        unmarked.outputs[0].token_ids,
        alone.outputs[0].token_ids,
    ]
    assert alone.outputs[0].token_ids != unmarked.outputs[0].token_ids


def test_without_a_key_no_text_can_be_marked():
    llm = LLM(kv_cache_gib=0.2)
    with pytest.raises(InvalidRequest, match="no watermark key") as refused:
        llm.generate("import os", SamplingParams(watermark=True))
    assert refused.value.param == "watermark"


def test_an_empty_key_is_refused():
    with pytest.raises(SettingsError, match="watermark key is empty"):
        LLM(kv_cache_gib=0.2, watermark_key="")


def test_the_key_is_never_shown(llm):
    from penstock.engine.settings import EngineSettings

    assert KEY not in repr(EngineSettings(watermark_key=KEY))
    assert KEY not in repr(llm.resolved)


@pytest.mark.parametrize(
    ("value", "words"),
    [(3, "watermark"), ({"gamma": 1.0}, "gamma"), ({"delta": -1}, "delta"), ({"key": "x"}, "key")],
)
def test_a_watermark_that_makes_no_sense_is_refused(value, words):
    from penstock.vocabulary.sampling_params import sampling_params_from

    with pytest.raises(InvalidRequest, match=words):
        sampling_params_from({"watermark": value}, also_known=[])
