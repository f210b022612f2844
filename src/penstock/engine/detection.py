"""Looking for a watermark, as a user's script does. Imports no torch."""

from penstock.models.location import find_model
from penstock.text.tokenizer import Tokenizer
from penstock.text.watermark import detect
from penstock.vocabulary.watermark import WatermarkReport


def detect_watermark(
    text: str,
    *,
    key: str,
    model: str | Tokenizer | None = None,
    gamma: float = 0.5,
) -> WatermarkReport:
    """Whether a model that marks its texts with `key` has written `text`.

        report = detect_watermark(text, key="...", model="Qwen/Qwen2.5-0.5B-Instruct")
        print(report.z_score, report.is_watermarked)

    `model` is the model whose texts are looked for (only its tokenizer is read), or a tokenizer
    that has been read already; by default the small embedded model. `gamma` is that of the
    watermark. Raises `ModelError` if there is no such model, and `InvalidRequest` for a text with
    fewer than two tokens.
    """
    tokenizer = model if isinstance(model, Tokenizer) else Tokenizer.from_dir(find_model(model)[1])
    return detect(tokenizer.encode(text, add_special_tokens=False), key, gamma=gamma)
