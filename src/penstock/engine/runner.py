"""One rank's share of a step: decoder, KV cache and sampling."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from penstock.engine.constraint import MaskMaker, Masks
from penstock.engine.graphs import Graphs
from penstock.engine.logprobs import Reported, report
from penstock.engine.pooling import added_up
from penstock.engine.sampler import sample
from penstock.engine.sampling_rows import SamplingRows
from penstock.engine.step_batch import Drawn, StepBatch
from penstock.engine.transfers import Arrival, Transfers
from penstock.kernels.ops import Ops
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache
from penstock.scheduling.sequence import Plan
from penstock.text.watermark import Greens
from penstock.vocabulary.messages import TokenLogprobs

PROMPT_ROWS = 128
"""Rows of logits that are computed at once where a prompt is read: each has a float for every token
of the vocabulary, and a step may read as many as it has tokens.
"""


@dataclass(slots=True)
class SliceResult:
    """What came of one slice: the tokens drawn after it, and log probabilities where asked for; or
    the embedding of the sequence that it ends.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    embedding: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Launched:
    """A step that the device has been told to compute."""

    plan: Plan
    token_ids: Arrival | None = None
    reported: tuple[list[int], Reported] | None = None
    """The rows, among those that draw, whose log probabilities were asked for."""
    prompt_reads: list[tuple[int, int]] = field(default_factory=list)
    """Slice numbers, and of how many tokens of its prompt each reports."""
    prompts: list[Reported] = field(default_factory=list)
    """What is reported of these tokens, one after the other, in pieces of any length."""
    embeddings: list[tuple[int, Arrival]] = field(default_factory=list)
    """Slice numbers, and the vectors of the sequences that they end."""
    began_at: float = field(default_factory=time.perf_counter)

    def results(self) -> list[SliceResult]:
        """Wait until the step has been computed; one result per slice, in its order."""
        results = [SliceResult() for _ in self.plan.slices]
        entries = chain.from_iterable(reported.entries() for reported in self.prompts)
        for number, count in self.prompt_reads:
            results[number].prompt_logprobs = list(islice(entries, count))
        for number, arrival in self.embeddings:
            [vector] = arrival.wait()
            results[number].embedding = vector.tolist()
        if self.token_ids is None:
            return results
        drawing = [
            result for result, part in zip(results, self.plan.slices, strict=True) if part.emits
        ]
        [token_ids] = self.token_ids.wait()
        for result, token_id in zip(drawing, token_ids.tolist(), strict=True):
            result.token_ids.append(token_id)
        if self.reported is not None:
            rows, reported = self.reported
            for row, entry in zip(rows, reported.entries(), strict=True):
                drawing[row].logprobs.append(entry)
        return results


class Runner:
    """Owns the decoder, the KV tensors, the ops and the device."""

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        ops: Ops,
        transfers: Transfers,
        greens: Greens | None = None,
        graphs: Graphs | None = None,
        *,
        prompt_rows: int = PROMPT_ROWS,
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.ops = ops
        self.transfers = transfers
        self.greens = greens
        self.graphs = graphs
        self.prompt_rows = prompt_rows
        self._mask_maker = MaskMaker(decoder.spec.vocab_size)
        self._drawn: Drawn | None = None

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Launched:
        """Have a plan computed, behind what was launched before. The tokens that the step before
        this one drew need not have been read.
        """
        if plan.copies:
            self.cache.copy_blocks(*self.transfers.to_device(list(np.array(plan.copies).T)))
        batch = StepBatch.lay_out(plan, self.cache.block_size, self.transfers, self._drawn)
        masks = self._mask_maker.start(batch.emitting)
        launched = Launched(plan)
        if self.graphs is not None and self.graphs.takes(batch):
            self._draw(batch, self.graphs.logits(batch), masks, launched)
            return launched
        hidden = self.decoder(batch.token_ids, batch.layout, self.cache)
        self._pool(launched, hidden)
        if batch.emitting:
            drawing = hidden[batch.logits_at[: len(batch.emitting)]]
            self._draw(batch, self.decoder.logits(drawing), masks, launched)
        self._read_prompts(batch, hidden, launched)
        return launched

    def _pool(self, launched: Launched, hidden: Tensor) -> None:
        """Sum up the hidden states of sequences that embed, which the last slice makes a vector."""
        first = 0
        for number, part in enumerate(launched.plan.slices):
            if part.sequence.request.embeds:
                rows = hidden[first : first + part.count]
                before = part.sequence.pooled if part.start else None
                total = added_up(self.decoder.project_out(rows), before)
                part.sequence.pooled = total
                if part.is_last:
                    arrival = self.transfers.to_host([normalize(total, dim=0)])
                    launched.embeddings.append((number, arrival))
            first += part.count

    def _draw(
        self, batch: StepBatch, logits: Tensor, masks: Future[Masks] | None, launched: Launched
    ) -> None:
        """Draw a token for every slice that emits."""
        found = masks.result() if masks else None
        rows = SamplingRows(batch.emitting, self.transfers, found, self.greens, self._drawn)
        reporting = [row for row, params in enumerate(rows.params) if params.logprobs is not None]
        at = rows.tensor(np.array(reporting, np.int64)) if reporting else None
        untouched = None if at is None else logits[at]
        token_ids = sample(logits, rows, self.ops)
        self._drawn = Drawn(token_ids, {each: row for row, each in enumerate(rows.sequences)})
        launched.token_ids = self.transfers.to_host([token_ids])
        if at is not None and untouched is not None:
            num_top = [rows.params[row].logprobs or 0 for row in reporting]
            reported = report(untouched, token_ids[at], num_top, self.ops, self.transfers)
            launched.reported = reporting, reported

    def _read_prompts(self, batch: StepBatch, hidden: Tensor, launched: Launched) -> None:
        """Report what the model makes of prompts, `prompt_rows` tokens at a time."""
        launched.prompt_reads = batch.prompt_reads
        following: list[int] = []
        num_top: list[int] = []
        for number, count in batch.prompt_reads:
            part = launched.plan.slices[number]
            following += part.sequence.token_ids[part.start + 1 : part.start + 1 + count]
            num_top += [part.sequence.request.sampling.prompt_logprobs or 0] * count
        if not following:
            return
        [predicted] = self.transfers.to_device([np.array(following, np.int64)])
        at = batch.logits_at[len(batch.emitting) :]
        for start in range(0, len(following), self.prompt_rows):
            piece = slice(start, start + self.prompt_rows)
            launched.prompts.append(
                report(
                    self.decoder.logits(hidden[at[piece]]),
                    predicted[piece],
                    num_top[piece],
                    self.ops,
                    self.transfers,
                )
            )
