"""The training loop: warm up, hold, decay; short rows first, rows of the full context last."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scripts.default_model.data import Rows, Streams
from scripts.default_model.llama import Llama, Shape
from scripts.default_model.muon import Muon

TOKENS_PER_PASS = 1024  # one forward and backward; more falls out of the caches


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides a run's outcome, apart from corpus and arithmetic."""

    steps: int = 1250
    decay_from: int = 900
    long_from: int = 1125
    tokens_per_step: int = 4096
    short_len: int = 512
    long_len: int = 2048
    warmup: int = 30
    muon_lr: float = 0.01
    adam_lr: float = 0.012
    weight_decay: float = 0.1
    seed: int = 0

    def lr_scale(self, step: int) -> float:
        """The learning rates' factor: up over the warm-up, one, then down to nearly zero."""
        left = (self.steps - step) / max(1, self.steps - self.decay_from)
        return min(1.0, (step + 1) / self.warmup, left)


class Report(NamedTuple):
    """What one step did."""

    step: int
    loss: float
    tokens_per_s: float


@dataclass
class Progress:
    """How far a run has come; saved with the weights."""

    step: int = 0
    num_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """One run: model, optimizers, rows, and where its checkpoint lies."""

    plan: Plan
    shape: Shape
    streams: Streams
    checkpoint: Path
    threads: int = 2
    compiled: bool = False
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        torch.manual_seed(self.plan.seed)
        self.model = Llama(self.shape)
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in chosen]
        plan = self.plan
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(matrices, lr=plan.muon_lr, weight_decay=plan.weight_decay),
            "adam": torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
        }
        # Each pass runs on one thread of its own: threads that share an operation wait for the
        # slower one after every operation, and on a busy machine there always is a slower one.
        self.pool = ThreadPoolExecutor(self.threads, "pass", torch.set_num_threads, (1,))
        self.loss = torch.compile(self.model, dynamic=False) if self.compiled else self.model
        self.rows = {
            length: Rows(self.streams, length, plan.seed)
            for length in (plan.short_len, plan.long_len)
        }

    def run(self, on_step: Callable[[Report], None], *, save_every_s: float = 120.0) -> None:
        """Train to the plan's last step, saving now and then and at the end."""
        saved_at = time.monotonic()
        while self.progress.step < self.plan.steps:
            started = time.monotonic()
            loss = self.step()
            elapsed = time.monotonic() - started
            self.progress.seconds += elapsed
            self.progress.num_tokens += self.plan.tokens_per_step
            self.progress.step += 1
            on_step(Report(self.progress.step, loss, self.plan.tokens_per_step / elapsed))
            if time.monotonic() - saved_at > save_every_s:
                self.save()
                saved_at = time.monotonic()
        self.save()

    def step(self) -> float:
        """One update; returns the mean loss in nats per token."""
        plan, step = self.plan, self.progress.step
        is_long = step >= plan.long_from
        length = plan.long_len if is_long else plan.short_len
        count = plan.tokens_per_step // length
        first = (step - plan.long_from if is_long else step) * count
        rows_per_pass = max(1, TOKENS_PER_PASS // length)
        rows = (
            self.rows[length]
            .take(first, count)
            .split_with_sizes([rows_per_pass] * (count // rows_per_pass))
        )
        losses = []
        for loss, gradients in self.pool.map(self.gradients, rows):
            losses.append(loss)
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.update(plan.lr_scale(step))
        return sum(losses)

    def gradients(self, rows: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        """This pass's share of the step's loss, and what it asks of each parameter."""
        loss = self.loss(rows[:, :-1], rows[:, 1:]) / self.plan.tokens_per_step
        return loss.item(), torch.autograd.grad(loss, list(self.model.parameters()))

    def update(self, lr_scale: float) -> None:
        """Let both optimizers act on the gathered gradients."""
        rates = {"muon": self.plan.muon_lr, "adam": self.plan.adam_lr}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name] * lr_scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def save(self) -> None:
        """Replace the checkpoint in one move, so that an interruption never leaves half of one."""
        content = {
            "model": self.model.state_dict(),
            "progress": vars(self.progress),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(content, part)
        part.replace(self.checkpoint)

    def resume(self) -> None:
        """Continue from the checkpoint: rows follow from the step, so nothing is seen twice."""
        content = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.progress = Progress(**content["progress"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content[name])
