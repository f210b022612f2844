"""An engine process that computes nothing: every running request gets a token each step.

It speaks the protocol of `penstock.engine.wire` and has the pace that the environment variable
PENSTOCK_SCRIPT (a `Pace` as JSON) gives it, so that only the front process is measured.
"""

import os
import select
import socket
import sys
import time
from collections import deque

import msgspec

from penstock.engine.settings import Resolved
from penstock.engine.wire import LENGTH, Ready, Stop, Turn, decode_to_engine, frame
from penstock.vocabulary.messages import Cancel, EngineStats, FinishReason, Output, Request, Step

VARIABLE = "PENSTOCK_SCRIPT"
_TOKENS = (260, 300, 340, 380)  # of the embedded vocabulary, any will do
_CONTEXT = 1_000_000


class Pace(msgspec.Struct, frozen=True):
    """Seconds a step takes, and how many requests run at once; others wait."""

    step_s: float
    max_num_seqs: int


class Script:
    """Requests in order of arrival, and how many tokens each still gets."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: deque[Request] = deque()
        self._running: dict[str, int] = {}
        self._num_steps = self._num_generated = 0

    def take(self, message: Request | Cancel) -> None:
        if isinstance(message, Request):
            self._waiting.append(message)
        elif message.index is None and self._running.pop(message.request_id, None) is None:
            kept = (each for each in self._waiting if each.request_id != message.request_id)
            self._waiting = deque(kept)

    def step(self) -> Turn:
        while self._waiting and len(self._running) < self._pace.max_num_seqs:
            request = self._waiting.popleft()
            self._running[request.request_id] = request.sampling.max_tokens or 16
        outputs = [self._token(name) for name in list(self._running)]
        self._num_steps += 1
        self._num_generated += len(outputs)
        return Turn(
            outputs=outputs,
            stats=EngineStats(
                num_running=len(self._running),
                num_waiting=len(self._waiting),
                num_steps=self._num_steps,
                num_generated_tokens=self._num_generated,
            ),
            step=self._told(len(outputs)) if outputs else None,
        )

    def _told(self, num_decoding: int) -> Step:
        return Step(
            number=self._num_steps,
            ended_at=time.time(),
            duration_s=self._pace.step_s,
            token_budget=self._pace.max_num_seqs,
            num_decoding=num_decoding,
            prompt_slices=[],
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks_used=0,
            num_multiply_adds=0,
            num_bytes_read=0,
            arithmetic_share=None,
            bandwidth_share=None,
        )

    def _token(self, name: str) -> Output:
        left = self._running[name] = self._running[name] - 1
        if not left:
            del self._running[name]
        token = _TOKENS[left % len(_TOKENS)]
        reason = None if left else FinishReason.LENGTH
        return Output(request_id=name, token_ids=[token], finish_reason=reason)


def main() -> None:
    """Steps at a steady pace until told to stop, or the front is gone."""
    pace = msgspec.json.decode(os.environ[VARIABLE], type=Pace)
    connection = socket.socket(fileno=int(sys.argv[1]))
    script, buffer = Script(pace), bytearray()
    connection.sendall(frame(_ready(pace)))
    due = time.monotonic()
    while True:
        due = max(due + pace.step_s, time.monotonic())
        while (pause := due - time.monotonic()) > 0:
            if not select.select([connection], [], [], pause)[0]:
                continue
            if not (data := connection.recv(1 << 20)):
                return
            buffer += data
            for message in _messages(buffer):
                if isinstance(message, Stop):
                    return
                if isinstance(message, Request | Cancel):
                    script.take(message)
        connection.sendall(frame(script.step()))


def _messages(buffer: bytearray):  # type: ignore[no-untyped-def]
    while len(buffer) >= LENGTH.size:
        [length] = LENGTH.unpack_from(buffer)
        if len(buffer) < LENGTH.size + length:
            return
        body = bytes(buffer[LENGTH.size : LENGTH.size + length])
        del buffer[: LENGTH.size + length]
        yield decode_to_engine(body)


def _ready(pace: Pace) -> Ready:
    return Ready(
        resolved=Resolved(
            model="scripted",
            architecture="none",
            device="cpu",
            device_name="none",
            weights="none",
            dtype="none",
            kv_dtype="none",
            attention="none",
            deterministic=True,
            max_model_len=_CONTEXT,
            token_budget=pace.max_num_seqs,
            max_num_seqs=pace.max_num_seqs,
            block_size=16,
            num_blocks=_CONTEXT,
            block_bytes=0,
            prefix_caching=True,
            packed_cache=False,
            packed_cache_bytes=0,
            verify=False,
            seed=None,
            vocab_size=4096,
            reasons=dict.fromkeys((*Resolved.__dataclass_fields__, "kv_cache"), "a script"),
        ),
        num_threads=1,
        notes=["This engine is a script: it computes nothing."],
        sampling_defaults={},
        end_token_ids=frozenset(),
        embedding_size=0,
    )


if __name__ == "__main__":
    main()
