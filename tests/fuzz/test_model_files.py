"""Damaged files of a model: read all the same, or refused with a `ModelError` that explains."""

import json
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.models.checkpoint import Checkpoint
from penstock.models.config import read_config
from penstock.models.families import ARCHITECTURES
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest, ModelError
from tests.fuzz.inputs import BRIEFLY, json_values, spoiled
from tests.models import checkpoints
from tests.text.vocabularies import KINDS

ROPE = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CONFIG = {
    **checkpoints.CONFIG,
    "rope_scaling": ROPE,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "head_dim": 4,
    "sliding_window": 5,
    "num_local_experts": 4,
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            }
        },
        "ignore": ["lm_head"],
    },
}
ODD = [0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, float("nan"), "", True, None, [], {}]
values = st.sampled_from(ODD) | json_values


@cache
def directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))


@st.composite
def altered(draw, document):
    """A JSON document in which some values have become others, or have gone."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.integers(0, 3)):
                place[key] = draw(values)
            else:
                del place[key]
            break
    return document


def written(name: str, document: object) -> Path:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    (directory() / name).write_bytes(content)
    return directory()


@BRIEFLY
@given(
    st.sampled_from(sorted(ARCHITECTURES)),
    altered(CONFIG) | spoiled(json.dumps(CONFIG).encode()),
    altered({"eos_token_id": [1, 2], "temperature": 0.7, "top_k": 3, "do_sample": True}),
)
def test_a_damaged_configuration_is_read_or_refused(architecture, config, generation):
    if isinstance(config, dict) and "architectures" in config:
        config["architectures"] = [architecture]
    written("generation_config.json", generation)
    try:
        found = read_config(written("config.json", config))
    except ModelError as refusal:
        assert str(refusal)
    else:
        assert found.architecture in ARCHITECTURES


@cache
def weights() -> bytes:
    checkpoints.write(directory())
    return (directory() / "model.safetensors").read_bytes()


@st.composite
def damaged_weights(draw):
    raw = weights()
    head, data = int.from_bytes(raw[:8], "little"), 8 + int.from_bytes(raw[:8], "little")
    if draw(st.booleans()):
        header = json.loads(raw[8:data])
        short = {name: header[name] for name in list(header)[:3]}
        text = json.dumps(draw(altered(short))).encode()
        return len(text).to_bytes(8, "little") + text + raw[data:]
    if draw(st.booleans()):
        return draw(spoiled(raw[: 8 + head])) + raw[data:]
    return draw(spoiled(raw[:400]))


@BRIEFLY
@given(damaged_weights())
def test_damaged_weights_are_read_or_refused(raw):
    path = directory() / "model.safetensors"
    path.unlink(missing_ok=True)  # another file: the last one may still be mapped
    path.write_bytes(raw)
    try:
        with Checkpoint(directory()) as checkpoint:
            for stored in checkpoint.tensors.values():
                try:
                    stored.read().sum()
                except ValueError as error:  # of an unknown type, as documented
                    assert str(error)
    except ModelError as refusal:
        assert str(refusal)


@cache
def tokenizer_json(kind: str) -> dict:
    return json.loads(KINDS[kind]().to_str())


@st.composite
def damaged_tokenizers(draw):
    document = tokenizer_json(draw(st.sampled_from(sorted(KINDS))))
    return draw(altered(document) | spoiled(json.dumps(document).encode()))


TOKENIZER_CONFIG = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>"},
    "add_bos_token": True,
    "chat_template": [{"name": "default", "template": "{{ messages }}"}],
}


@BRIEFLY
@given(
    damaged_tokenizers(),
    altered(TOKENIZER_CONFIG) | spoiled(json.dumps(TOKENIZER_CONFIG).encode()),
)
def test_a_damaged_tokenizer_works_or_is_refused(document, config):
    written("tokenizer_config.json", config)
    try:
        tokenizer = Tokenizer.from_dir(written("tokenizer.json", document))
        ids = tokenizer.encode("Hi the quick brown fox! 日")
        assert isinstance(tokenizer.decode(ids), str)
    except (ModelError, InvalidRequest) as refusal:
        assert str(refusal)
