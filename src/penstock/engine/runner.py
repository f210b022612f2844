"""One rank's share of a step: decoder, KV cache and sampling."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from penstock.engine.constraint import MaskMaker
from penstock.engine.logprobs import rows_of, token_logprobs
from penstock.engine.pooling import added_up
from penstock.engine.sampler import sample
from penstock.engine.sampling_rows import SamplingRows
from penstock.engine.step_batch import StepBatch
from penstock.kernels.ops import Ops
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache
from penstock.scheduling.sequence import Plan
from penstock.text.watermark import Greens
from penstock.vocabulary.messages import TokenLogprobs


@dataclass(slots=True)
class SliceResult:
    """What came of one slice: the tokens drawn after it, and log probabilities where asked for; or
    the embedding of the sequence that it ends.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    embedding: list[float] = field(default_factory=list)


class Runner:
    """Owns the decoder, the KV tensors, the ops and the device."""

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        ops: Ops,
        device: torch.device,
        greens: Greens | None = None,
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.ops = ops
        self.device = device
        self.greens = greens
        self._mask_maker = MaskMaker(decoder.spec.vocab_size)

    @torch.inference_mode()
    def run(self, plan: Plan) -> list[SliceResult]:
        """Compute a plan; one result per slice, in its order."""
        if plan.copies:
            self.cache.copy_blocks(plan.copies)
        batch = StepBatch.lay_out(plan, self.cache.block_size, self.device)
        masks = self._mask_maker.start(batch.emitting)
        hidden = self.decoder(batch.token_ids, batch.layout, self.cache)
        results = [SliceResult() for _ in plan.slices]
        if len(batch.logits_at):
            logits = self.decoder.logits(hidden[batch.logits_at])
            self._read_prompts(plan, batch, logits, results)
            emitting = [
                result for result, part in zip(results, plan.slices, strict=True) if part.emits
            ]
            rows = SamplingRows(
                batch.emitting, self.device, masks.result() if masks else None, self.greens
            )
            self._draw(rows, logits[: len(emitting)], emitting)
        self._pool(plan, hidden, results)
        return results

    def _pool(self, plan: Plan, hidden: Tensor, results: list[SliceResult]) -> None:
        """Sum up the hidden states of sequences that embed, which the last slice makes a vector."""
        first = 0
        for part, result in zip(plan.slices, results, strict=True):
            if part.sequence.request.embeds:
                rows = hidden[first : first + part.count]
                before = part.sequence.pooled if part.start else None
                total = added_up(self.decoder.project_out(rows), before)
                part.sequence.pooled = total
                if part.is_last:
                    result.embedding = normalize(total, dim=0).tolist()
            first += part.count

    def _draw(self, rows: SamplingRows, logits: Tensor, results: list[SliceResult]) -> None:
        if not results:
            return
        reported = [row for row, params in enumerate(rows.params) if params.logprobs is not None]
        untouched = rows_of(logits, reported) if reported else logits
        token_ids = sample(logits, rows, self.ops)
        for result, token_id in zip(results, token_ids.tolist(), strict=True):
            result.token_ids.append(token_id)
        if reported:
            chosen = rows_of(token_ids, reported)
            num_top = [rows.params[row].logprobs or 0 for row in reported]
            for row, entry in zip(
                reported, token_logprobs(untouched, chosen, num_top, self.ops), strict=True
            ):
                results[row].logprobs.append(entry)

    def _read_prompts(
        self, plan: Plan, batch: StepBatch, logits: Tensor, results: list[SliceResult]
    ) -> None:
        first = len(batch.emitting)
        for number, count in batch.prompt_reads:
            part = plan.slices[number]
            predicted = part.sequence.token_ids[part.start + 1 : part.start + 1 + count]
            num_top = part.sequence.request.sampling.prompt_logprobs or 0
            results[number].prompt_logprobs = token_logprobs(
                logits[first : first + count],
                torch.tensor(predicted, device=self.device),
                [num_top] * count,
                self.ops,
            )
            first += count
