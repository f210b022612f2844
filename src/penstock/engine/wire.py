"""What the front process and the engine process say to each other, and how it is framed.

Each frame is a little-endian 32-bit length and that many bytes of MessagePack: one of the structs
below, told apart by its tag. Nothing else is ever decoded, and never into code.
"""

import struct

import msgspec

from penstock.engine.placement import WHOLE, Share
from penstock.engine.settings import EngineSettings, Resolved
from penstock.vocabulary.messages import (
    Cancel,
    EngineStats,
    Output,
    Request,
    ResetPrefixCache,
    Step,
)

LENGTH = struct.Struct("<I")


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first message to a new engine process: what to load, and what of the machine it has."""

    settings: EngineSettings
    share: Share = WHOLE
    name: str
    model_dir: str
    log_format: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Leave now."""


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag="loading"):
    """Bytes of weights read so far, and in all."""

    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded; requests are welcome. `num_threads` compute it, on a CPU."""

    resolved: Resolved
    num_threads: int
    notes: list[str]
    sampling_defaults: dict[str, float | int]
    end_token_ids: frozenset[int]
    embedding_size: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The engine could not start, or broke in the middle of a step; it exits after saying so."""

    kind: str
    message: str
    remedy: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True, tag="turn"):
    """One turn of the loop: what came out. Sent after every step, and twice a second when idle.

    `step` is None where nothing was computed.
    """

    outputs: list[Output]
    stats: EngineStats
    step: Step | None = None


ToEngine = Start | Request | Cancel | ResetPrefixCache | Stop
FromEngine = Loading | Ready | Failed | Turn

_encoder = msgspec.msgpack.Encoder()
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode


def frame(message: ToEngine | FromEngine) -> bytes:
    """One message, ready to be written to the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body
