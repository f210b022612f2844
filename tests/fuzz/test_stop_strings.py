"""Any tokens, any stop strings, any steps: the text ends where a slow and simple search says."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.transcript import Transcript
from penstock.text.detokenizer import Detokenizer
from penstock.vocabulary.messages import FinishReason, Output, Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.fuzz.inputs import BRIEFLY, cut, texts
from tests.server.scripted_llm import byte_tokenizer
from tests.text.test_stop_strings import first_stop

token_ids = texts.map(lambda text: list(text.encode())) | st.lists(st.integers(0, 255))


@st.composite
def stopped_completions(draw):
    """(token ids, their steps, stop strings, many of which occur in the text)."""
    ids, steps = draw(cut(token_ids))
    text = bytes(ids).decode("utf-8", "replace")
    stops = []
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(text)))
        within = text[begin : begin + draw(st.integers(1, 6))]
        stops.append(within + draw(st.sampled_from(["", "", "x", "\n"])))
    return ids, steps, [stop for stop in stops if stop]


@BRIEFLY
@given(stopped_completions(), st.booleans())
def test_a_stream_ends_where_the_whole_text_would_and_never_shows_a_part_of_what_ended_it(
    completion, include
):
    ids, steps, stops = completion
    whole = Detokenizer(byte_tokenizer(None), prompt_token_ids=[1]).add(ids)
    params = SamplingParams(stop=stops or None, include_stop_str_in_output=include)
    request = Request(request_id="", prompt_token_ids=[1], sampling=params)
    transcript = Transcript(request, byte_tokenizer(None))
    found = first_stop(whole, stops)
    end = len(whole) if found is None else found[0]
    expected = whole[:end] if found is None or include else whole[: end - len(found[1])]
    shown, reason = "", None
    for number, step in enumerate(steps):
        last = FinishReason.LENGTH if number == len(steps) - 1 else None
        delta = transcript.add(Output(request_id="", token_ids=step, finish_reason=last))
        if delta is None:
            break
        shown += delta.text
        assert expected.startswith(shown)
        reason = delta.stop_reason
    assert transcript.has_ended
    assert shown == expected
    assert reason == (None if found is None else found[1])
