"""Any ids of any vocabulary, in any steps, behind any prompt: the text that decoding gives."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.text.detokenizer import Detokenizer
from tests.fuzz.inputs import BRIEFLY, cut
from tests.text.test_detokenizer import KINDS, is_all_but_the_end, streamed
from tests.text.vocabularies import TOKENIZERS


@st.composite
def completions(draw):
    """(a kind of vocabulary, prompt, completion, its steps); some ids are of no token."""
    kind = draw(st.sampled_from(KINDS))
    ids = st.lists(st.integers(0, TOKENIZERS[kind].vocab_size + 2), max_size=24)
    return kind, draw(ids), *draw(cut(ids))


@BRIEFLY
@given(completions(), st.booleans())
def test_a_stream_says_what_decoding_says_and_never_takes_a_word_back(completion, skip):
    kind, _, ids, steps = completion
    tokenizer = TOKENIZERS[kind]
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    detokenizer, shown = Detokenizer(tokenizer, skip_special_tokens=skip), ""
    for step in steps:
        shown += detokenizer.add(step)
        assert whole.startswith(shown)
    assert is_all_but_the_end(shown + detokenizer.finish(), whole)


@BRIEFLY
@given(completions())
def test_prompt_and_completion_together_are_the_text_of_both(completion):
    kind, prompt, ids, steps = completion
    tokenizer = TOKENIZERS[kind]
    text = streamed(tokenizer, [prompt]) + streamed(tokenizer, steps, prompt_token_ids=prompt)
    assert is_all_but_the_end(text, tokenizer.decode(prompt + ids))
