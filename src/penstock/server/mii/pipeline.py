"""`penstock.pipeline`: a model in the caller's own process, called as MII's pipeline is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.engine.front_settings import FrontSettings
from penstock.engine.placement import AUTO, replica_devices
from penstock.server.decoding import converted
from penstock.server.mii.arguments import settings_from_mii
from penstock.server.mii.parameters import GenerateParams
from penstock.server.mii.response import Response, response_of
from penstock.vocabulary.errors import InvalidRequest, SettingsError

if TYPE_CHECKING:
    from penstock.engine.llm import LLM


class Pipeline:
    """A loaded model. Call it with prompts and MII's options; one thread at a time may."""

    def __init__(self, llm: "LLM") -> None:
        self._llm: LLM | None = llm

    def __call__(self, prompts: str | Sequence[str], **options: Any) -> list[Response]:
        """Continue a prompt or several; responses come in their order.

        Options are those of `GenerateParams`. Raises `InvalidRequest` before anything is computed
        if a prompt cannot be continued as asked.
        """
        llm = self._llm
        if llm is None:
            raise InvalidRequest("This pipeline has been destroyed.", remedy="Make a new one.")
        chosen = converted(options, GenerateParams)
        if chosen.stream:
            raise InvalidRequest(
                "A pipeline does not stream.",
                param="stream",
                remedy="Use penstock.serve and its client's streaming_fn, or LLM.stream.",
            )
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        token_ids = [llm.tokenizer.encode(text) for text in texts]
        outputs = llm.generate(
            [
                {"prompt_token_ids": ids, "prompt": text}
                for ids, text in zip(token_ids, texts, strict=True)
            ],
            [chosen.sampling(len(ids), llm.resolved.max_model_len) for ids in token_ids],
            use_tqdm=False,
        )
        return [response_of(output, full_text=chosen.return_full_text) for output in outputs]

    def destroy(self) -> None:
        """Let go of the model and its memory."""
        self._llm = None


def pipeline(model_name_or_path: str | None = None, **arguments: Any) -> Pipeline:
    """Load a model into this process, to be called as DeepSpeed-MII's pipeline is.

        pipe = penstock.pipeline("Qwen/Qwen2.5-0.5B-Instruct")
        [response] = pipe(["DeepSpeed is"], max_new_tokens=64)

    Without a model it is the small embedded one. Arguments are MII's where they mean something
    here (docs/mii.md), or settings of `LLM`. Raises `SettingsError` for others.
    """
    settings = settings_from_mii(arguments)
    front = FrontSettings(
        replicas=settings.pop("replicas", None), device_map=settings.pop("device_map", AUTO)
    )
    settings["device"] = _device(settings.get("device", AUTO), front)
    from penstock.engine.llm import LLM  # here, since it imports torch

    return Pipeline(LLM(model_name_or_path, **settings))


def _device(device: str, front: FrontSettings) -> str:
    devices = replica_devices(device, front.replicas, front.device_map)
    if len(devices) > 1:
        raise SettingsError(
            f"A pipeline is one engine, in this process; {len(devices)} replicas were asked for.",
            remedy="penstock.serve runs several.",
        )
    return devices[0]
