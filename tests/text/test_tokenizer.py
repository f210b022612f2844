import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing

from penstock.text.spelling import spelling_of
from penstock.text.tokenizer import Tokenizer
from penstock.text.tokenizer_files import eos_token_id
from penstock.vocabulary.errors import InvalidRequest, ModelError
from tests.text import vocabularies
from tests.text.vocabularies import LIBRARIES, TOKENIZERS, save

KINDS = sorted(TOKENIZERS)


def id_of(kind: str, token: str) -> int:
    return LIBRARIES[kind].token_to_id(token)


@given(st.sampled_from(KINDS), st.lists(st.integers(0, 340), max_size=20), st.booleans())
def test_decoding_agrees_with_the_library_wherever_all_bytes_are_characters(kind, ids, skip):
    text = TOKENIZERS[kind].decode(ids, skip_special_tokens=skip)
    if kind == "byte_level" or "\ufffd" not in text:
        assert text == LIBRARIES[kind].decode(ids, skip_special_tokens=skip)


def test_an_invalid_byte_does_not_spoil_the_valid_bytes_beside_it():
    ids = [id_of("byte_fallback", token) for token in ("<0x41>", "<0xE5>", "b")]
    assert TOKENIZERS["byte_fallback"].decode(ids) == "A\ufffdb"
    assert LIBRARIES["byte_fallback"].decode(ids) == "\ufffd\ufffdb"


@given(st.text(max_size=30))
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(text):
    tokenizer = TOKENIZERS["byte_level"]
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode()


@given(st.text(min_size=1, max_size=30))
def test_where_a_space_is_put_before_every_text_the_bytes_of_the_tokens_have_it(text):
    tokenizer = TOKENIZERS["byte_fallback"]
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == b" " + text.encode()


def test_the_byte_level_alphabet_is_the_library_s():
    spelling = spelling_of(decoders.ByteLevel())
    spelled = {spelling.later(character) for character in pre_tokenizers.ByteLevel.alphabet()}
    assert spelled == {bytes([byte]) for byte in range(256)}


@pytest.mark.parametrize(
    "kind, token, data, text",
    [
        ("byte_level", "Ġthe", b" the", " the"),
        ("byte_level", "<s>", b"<s>", "<s>"),
        ("byte_level", "    ", b"    ", "    "),
        ("byte_level", "Ã", b"\xc3", "\ufffd"),
        ("byte_fallback", "▁the", b" the", " the"),
        ("byte_fallback", "<0x0A>", b"\n", "\n"),
        ("byte_fallback", "<0xE5>", b"\xe5", "\ufffd"),
        ("byte_fallback", "é", "é".encode(), "é"),
        ("byte_fallback", "</s>", b"</s>", "</s>"),
        ("metaspace", "▁▁b", b"  b", "  b"),
        ("wordpiece", "##ly", b"ly", "ly"),
        ("wordpiece", "hello", b" hello", " hello"),
        ("whole_words", "two", b" two", " two"),
    ],
)
def test_a_token_has_exact_bytes_and_a_text_that_shows_them(kind, token, data, text):
    tokenizer, id_ = TOKENIZERS[kind], id_of(kind, token)
    assert (tokenizer.token_bytes(id_), tokenizer.token_text(id_)) == (data, text)


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_without_a_token_spells_nothing(kind):
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
    assert tokenizer.decode([tokenizer.vocab_size]) == ""


def test_every_id_lies_below_the_vocabulary_s_size_those_of_added_tokens_too():
    library = vocabularies.byte_level()
    assert Tokenizer(library).vocab_size == library.get_vocab_size(with_added_tokens=True)
    assert max(Tokenizer(library).encode("<tool>")) < Tokenizer(library).vocab_size


def test_a_lone_surrogate_is_refused():
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        TOKENIZERS["byte_level"].encode("\ud800")


def test_an_unknown_kind_of_decoder_is_refused_by_name():
    with pytest.raises(ModelError, match="CTC"):
        spelling_of(decoders.CTC())
    with pytest.raises(ModelError, match=r"\(Strip\) is not supported"):
        spelling_of(decoders.Strip(" ", 1, 0))
    for after_fusing in (decoders.Strip(" ", 2, 0), decoders.Replace("a", "b")):
        with pytest.raises(ModelError, match="not supported"):
            spelling_of(decoders.Sequence([decoders.Fuse(), after_fusing]))


# A model directory


def test_special_tokens_are_read_in_either_notation(tmp_path):
    save(tmp_path, vocabularies.byte_level(), eos_token={"content": "</s>", "special": True})
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>"}))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.special_token_ids == {0, 1}


def test_a_named_special_token_is_special_even_if_tokenizer_json_forgot_it(tmp_path):
    save(tmp_path, vocabularies.byte_level(), eos_token="<tool>")
    tokenizer = Tokenizer.from_dir(tmp_path)
    [id_] = tokenizer.encode("<tool>")
    assert id_ in tokenizer.special_token_ids
    assert tokenizer.decode([id_]) == ""


def test_a_special_token_that_the_vocabulary_lacks_gets_no_id(tmp_path):
    save(tmp_path, vocabularies.byte_level(), pad_token="<|nowhere|>")
    assert Tokenizer.from_dir(tmp_path).vocab_size == LIBRARIES["byte_level"].get_vocab_size()


def test_truncation_and_padding_saved_with_the_file_are_not_applied(tmp_path):
    library = vocabularies.byte_level()
    library.enable_truncation(4)
    library.enable_padding(length=64)
    assert len(Tokenizer.from_dir(save(tmp_path, library)).encode("xyzxyzxyz")) == 9


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("in_file", [True, False])
def test_the_config_decides_whether_a_text_begins_with_bos(tmp_path, wanted, in_file):
    library = vocabularies.byte_level()
    if in_file:
        library.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    save(tmp_path, library, bos_token="<s>", add_bos_token=wanted)
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert (tokenizer.encode("x")[0] == 0) is wanted
    assert tokenizer.encode("x", add_special_tokens=False) == tokenizer.encode("x")[wanted:]


def test_without_tokenizer_json_the_error_says_how_to_get_one(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Tokenizer.from_dir(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(ModelError, match=r"tokenizer\.model but no .*save_pretrained"):
        Tokenizer.from_dir(tmp_path)
    with pytest.raises(ModelError, match="no model directory"):
        Tokenizer.from_dir(tmp_path / "absent")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b'{"version": ', b"\xff\xfe", b"[]"])
def test_a_corrupt_file_is_named(tmp_path, name, content):
    save(tmp_path, vocabularies.byte_level())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        Tokenizer.from_dir(tmp_path)


# Where the chat template is found


def test_a_model_without_a_chat_template_has_none(tmp_path):
    assert Tokenizer.from_dir(save(tmp_path, vocabularies.byte_level())).chat_template is None


def test_a_chat_template_is_found_wherever_models_keep_it(tmp_path):
    def found() -> str:
        return Tokenizer.from_dir(tmp_path).chat_template.render([])

    save(tmp_path, vocabularies.byte_level())
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert found() == "old"
    save(tmp_path, vocabularies.byte_level(), chat_template="configured")
    assert found() == "configured"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "by default"}]
    save(tmp_path, vocabularies.byte_level(), chat_template=named)
    assert found() == "by default"
    (tmp_path / "chat_template.jinja").write_text("from its own file: {{ eos_token }}")
    save(tmp_path, vocabularies.byte_level(), eos_token="</s>")
    assert found() == "from its own file: </s>"


def test_named_templates_without_a_default_are_refused_by_name(tmp_path):
    named = [{"name": "tool_use", "template": "t"}]
    save(tmp_path, vocabularies.byte_level(), chat_template=named)
    with pytest.raises(ModelError, match="tool_use"):
        Tokenizer.from_dir(tmp_path)


def test_of_named_templates_those_without_a_proper_name_are_passed_over(tmp_path):
    named = [{"name": [], "template": "t"}, {"name": "default", "template": "by default"}]
    save(tmp_path, vocabularies.byte_level(), chat_template=named)
    assert Tokenizer.from_dir(tmp_path).chat_template.render([]) == "by default"


def test_a_text_that_the_library_fails_on_is_refused_in_its_words():
    library = tokenizers.Tokenizer(WordLevel({"one": 0}, unk_token="gone"))
    with pytest.raises(InvalidRequest, match=r"cannot encode this text: .*Missing"):
        Tokenizer(library).encode("two")


def test_no_more_text_is_encoded_than_allowed():
    tokenizer = Tokenizer(LIBRARIES["byte_level"], max_chars=5)
    assert tokenizer.encode("12345")
    with pytest.raises(InvalidRequest, match=r"6 characters; this server accepts 5\. Shorten it"):
        tokenizer.encode("123456")


def test_the_end_of_text_is_found_by_the_name_that_the_tokenizer_s_files_give_it(tmp_path):
    assert eos_token_id(tmp_path) is None
    save(tmp_path, LIBRARIES["byte_level"], **vocabularies.NAMED)
    id_ = Tokenizer.from_dir(tmp_path).special_tokens["</s>"]
    assert eos_token_id(tmp_path) == id_
    (tmp_path / "tokenizer.json").unlink()
    config = {"eos_token": "</s>", "added_tokens_decoder": {"7": {"content": "</s>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert eos_token_id(tmp_path) == 7
