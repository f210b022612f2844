"""Run with TGI's own Python client: python text_generation_client.py URL. Prints what it found."""

import json
import sys

import text_generation
from text_generation.errors import ValidationError

PROMPT = "def fibonacci(n):"


def main() -> None:
    """Ask in every way that the client knows, and tell the answers as JSON."""
    client = text_generation.Client(sys.argv[1], timeout=300)
    whole = client.generate(PROMPT, max_new_tokens=8, top_n_tokens=2)
    events = list(client.generate_stream(PROMPT, max_new_tokens=8))
    sampled = client.generate(PROMPT, max_new_tokens=4, do_sample=True, best_of=2)
    prefill = client.generate(PROMPT, max_new_tokens=1, decoder_input_details=True)
    chat = client.chat(messages=[{"role": "user", "content": "Hello"}], max_tokens=4)
    try:
        client.generate(PROMPT, stop_sequences=["a"] * 5)
    except ValidationError as error:
        refusal = str(error)
    found = {
        "text": whole.generated_text,
        "num_tokens": len(whole.details.tokens),
        "num_top_tokens": len(whole.details.top_tokens),
        "finish_reason": whole.details.finish_reason.value,
        "streamed": events[-1].generated_text,
        "pieces": [event.token.text for event in events if not event.token.special],
        "num_others": len(sampled.details.best_of_sequences),
        "num_prefill_tokens": len(prefill.details.prefill),
        "chat": chat.choices[0].message.content,
        "refusal": refusal,
    }
    print(json.dumps(found))


main()
