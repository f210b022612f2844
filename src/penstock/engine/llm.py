"""`LLM`: the engine inside the caller's own process."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, Required, TypedDict

from penstock.engine.bars import GenerationBar, loading_bar
from penstock.engine.checks import check_request, refused
from penstock.engine.loading import load_engine, prepare
from penstock.engine.settings import settings_from
from penstock.engine.transcript import Transcript, empty_result
from penstock.models.location import find_model
from penstock.text.chat_prompt import chat_prompt
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import Cancel, EngineStats, Request
from penstock.vocabulary.results import Delta, RequestOutput
from penstock.vocabulary.sampling_params import SamplingParams


class TokensPrompt(TypedDict):
    """A prompt that has been tokenized already."""

    prompt_token_ids: Required[list[int]]
    prompt: NotRequired[str]


Prompt = str | TokensPrompt


class LLM:
    """A model, loaded and ready. One thread at a time may use it.

        llm = LLM()
        [result] = llm.generate("def fibonacci(n):", SamplingParams(max_tokens=60))
        print(result.outputs[0].text)

    `model` is a directory or a Hugging Face name; without one, the small embedded model. The other
    settings are those of `EngineSettings`. Raises `ModelError` or `SettingsError` if that cannot
    be.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        asked = settings_from({"model": model, **settings})
        name, model_dir = find_model(asked.model, asked.revision)
        prepared = prepare(asked, model_dir, name)
        self._can_watermark = asked.watermark_key is not None
        self.sampling_defaults = prepared.config.sampling_defaults
        self.tokenizer = Tokenizer.from_dir(model_dir)
        with loading_bar() as on_progress:
            self.engine = load_engine(prepared, on_progress, tokenizer=self.tokenizer)
        self.resolved = self.engine.resolved
        self._numbers = itertools.count()
        self._transcripts: dict[str, Transcript] = {}
        self._deltas: dict[str, deque[Delta | InvalidRequest]] = {}

    @property
    def stats(self) -> EngineStats:
        """The engine at this moment; its counters run from its start."""
        return self.engine.stats()

    def default_sampling_params(self, **options: Any) -> SamplingParams:
        """Sampling options as the model's makers recommend, with these changed."""
        return SamplingParams(**{**self.sampling_defaults, **options})

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continue every prompt; results come in the order of the prompts.

        A prompt is text or {"prompt_token_ids": [...]}. `sampling_params` holds for all of them, or
        is one for each. `use_tqdm` (the name that others use) shows a progress bar on a terminal.
        Raises `InvalidRequest` before anything is computed if one of them cannot be answered.
        """
        requests = self._requests(prompts, sampling_params)
        results = {request.request_id: empty_result(request, text) for request, text in requests}
        with GenerationBar(len(requests), shown=use_tqdm) as bar:
            for request_id, delta in self._run([request for request, _ in requests]):
                result = results[request_id]
                result.add(delta)
                bar.add(num_tokens=len(delta.token_ids), finished=result.finished)
        return list(results.values())

    def embed(
        self, prompts: Prompt | Sequence[Prompt], *, use_tqdm: bool = True
    ) -> list[list[float]]:
        """A vector of length 1 for every prompt: the mean of the model's last hidden states.

        It says how alike texts are to a model that was not trained to tell. Raises `InvalidRequest`
        before anything is computed if one of the prompts cannot be read.
        """
        listed = [prompts] if isinstance(prompts, str | dict) else list(prompts)
        params = SamplingParams()
        requests = [self._request(prompt, params, embeds=True)[0] for prompt in listed]
        vectors: dict[str, list[float]] = {}
        with GenerationBar(len(requests), shown=use_tqdm) as bar:
            for request_id, delta in self._run(requests):
                vectors[request_id] = delta.embedding
                bar.add(num_tokens=0, finished=True)
        return [vectors[request.request_id] for request in requests]

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Iterator[Delta]:
        """Continue one prompt, handing out text as it comes. Closing the iterator ends it."""
        [(request, _)] = self._requests(prompt, sampling_params)
        for _, delta in self._run([request]):
            yield delta

    def chat(
        self,
        messages: list[dict[str, Any]],
        sampling_params: SamplingParams | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answer one conversation, written down as the model's chat template says."""
        return self.generate(self.chat_prompt(messages), sampling_params, use_tqdm=use_tqdm)

    def chat_prompt(self, messages: list[dict[str, Any]]) -> TokensPrompt:
        """A conversation as a prompt. Raises `InvalidRequest` if the model has no chat template."""
        text, token_ids = chat_prompt(self.tokenizer, messages)
        return {"prompt_token_ids": token_ids, "prompt": text}

    def _requests(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
    ) -> list[tuple[Request, str | None]]:
        """One request per prompt, checked, with the prompt's text where it has one."""
        listed = [prompts] if isinstance(prompts, str | dict) else list(prompts)
        if sampling_params is None:
            sampling_params = self.default_sampling_params()
        if isinstance(sampling_params, SamplingParams):
            sampling_params = [sampling_params] * len(listed)
        if len(sampling_params) != len(listed):
            raise InvalidRequest(
                f"{len(listed)} prompts but {len(sampling_params)} sampling_params.",
                param="sampling_params",
                remedy="Give one for all, or one for each.",
            )
        return [
            self._request(prompt, params)
            for prompt, params in zip(listed, sampling_params, strict=True)
        ]

    def _request(
        self, prompt: Prompt, params: SamplingParams, *, embeds: bool = False
    ) -> tuple[Request, str | None]:
        text: str | None
        if isinstance(prompt, str):
            token_ids, text = self.tokenizer.encode(prompt), prompt
        elif isinstance(prompt, dict) and "prompt_token_ids" in prompt:
            token_ids, text = prompt["prompt_token_ids"], prompt.get("prompt")
        else:
            raise InvalidRequest(
                f"A prompt cannot be of type {type(prompt).__name__}.",
                param="prompts",
                remedy='Give text or {"prompt_token_ids": [...]}.',
            )
        check_request(
            token_ids, params, self.resolved, can_watermark=self._can_watermark, embeds=embeds
        )
        if params.grammar is not None:
            self.engine.grammars.of(params.grammar).result()
        number = f"llm-{next(self._numbers)}"
        request = Request(
            request_id=number, prompt_token_ids=token_ids, sampling=params, embeds=embeds
        )
        return request, text

    def _run(self, requests: list[Request]) -> Iterator[tuple[str, Delta]]:
        """Step until these requests are done. What is left when the caller stops early is
        cancelled.
        """
        mine = {request.request_id for request in requests}
        for request in requests:
            self._transcripts[request.request_id] = Transcript(request, self.tokenizer)
            self._deltas[request.request_id] = deque()
            self.engine.add(request)
        try:
            while mine:
                self._step()
                for request_id in list(mine):
                    deltas = self._deltas[request_id]
                    while deltas:
                        delta = deltas.popleft()
                        if isinstance(delta, InvalidRequest):
                            raise delta
                        yield request_id, delta
                    if self._transcripts[request_id].has_ended:
                        mine.remove(request_id)
                        self._forget(request_id)
        finally:
            for request_id in mine:
                self.engine.cancel(Cancel(request_id=request_id))
                self._forget(request_id)

    def _step(self) -> None:
        """One step, for whoever is being served: several streams may be open at once."""
        self.engine.wait()
        for output in self.engine.step():
            if output.refusal is not None:
                self._deltas[output.request_id].append(refused(output.refusal))
                continue
            delta = self._transcripts[output.request_id].add(output)
            if delta is not None:
                self._deltas[output.request_id].append(delta)
                if delta.finish_reason is not None and output.finish_reason is None:
                    self.engine.cancel(Cancel(request_id=output.request_id, index=output.index))

    def _forget(self, request_id: str) -> None:
        del self._transcripts[request_id], self._deltas[request_id]
