"""Requests that between them have every option that a step sees to, but for a grammar, which takes
a tokenizer. They need nothing to run that is only for tests: `scripts/gpu-check` sends them too.
"""

from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams

KEY = "any watermark key"


def _request(name: str, prompt_len: int, *, embeds: bool = False, **options: object) -> Request:
    params = SamplingParams(**{"max_tokens": 5, "ignore_eos": True} | options)
    prompt = [3 + (7 * number + prompt_len) % 97 for number in range(prompt_len)]
    return Request(request_id=name, prompt_token_ids=prompt, sampling=params, embeds=embeds)


EVERY_OPTION = [
    _request("greedy", 9, temperature=0),
    _request(
        "shaped", 21, temperature=0.8, top_k=40, top_p=0.95, min_p=0.001, typical_p=0.9, seed=3
    ),
    _request(
        "penalised",
        7,
        temperature=0,
        repetition_penalty=1.7,
        frequency_penalty=0.5,
        presence_penalty=0.3,
        min_tokens=3,
        stop_token_ids=[5],
    ),
    _request(
        "steered",
        5,
        logit_bias={3: 2.0, 8: -100.0},
        allowed_token_ids=list(range(60)),
        banned_token_ids=[4],
        seed=1,
    ),
    _request("reported", 18, n=2, logprobs=3, prompt_logprobs=2, seed=5),
    _request("marked", 4, watermark=True, max_tokens=2, seed=9),
    _request("embedded", 11, embeds=True),
]
"""The watermarked one ends early: as long as it runs, nothing is planned ahead."""
