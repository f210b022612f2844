"""How the server listens and what it allows."""

from dataclasses import dataclass, field

from penstock.text.parsing.choice import (
    AUTO,
    REASONING_PARSERS,
    TOOL_PARSERS,
    check_parser_names,
)
from penstock.vocabulary.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Every setting of the HTTP front. The command line derives its flags and their help from here.

    Raises `SettingsError` for values that cannot work.
    """

    host: str = field(
        default="127.0.0.1",
        metadata={"help": "Address to listen on; 0.0.0.0 opens the server to the network."},
    )
    port: int = field(
        default=8000, metadata={"help": "Port to listen on; 0 takes a free one and reports it."}
    )
    dialects: tuple[str, ...] = field(
        default=("openai",),
        metadata={
            "flag": "--dialect",
            "help": "Whose clients to answer; may be given several times: docs/http.md.",
        },
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "flag": "--api-key",
            "help": "Answer only requests with this bearer token; may be given several times.",
        },
    )
    served_model_name: str | None = field(
        default=None,
        metadata={"help": "Name by which clients ask for the model; by default its own."},
    )
    max_body_bytes: int = field(
        default=4 * 1024 * 1024, metadata={"help": "Largest request body accepted, in bytes."}
    )
    max_prompts: int = field(
        default=256, metadata={"help": "Most prompts accepted in one completions request."}
    )
    tool_parser: str = field(
        default=AUTO,
        metadata={
            "help": "How the model writes tool calls: "
            f"{', '.join(TOOL_PARSERS)}. By default as its chat template teaches it."
        },
    )
    reasoning_parser: str = field(
        default=AUTO,
        metadata={
            "help": "How the model marks what it thinks before it answers: "
            f"{', '.join(REASONING_PARSERS)}. By default as its chat template does."
        },
    )
    request_timeout_s: float | None = field(
        default=None,
        metadata={"help": "Give up on a request after this many seconds; by default never."},
    )
    drain_timeout_s: float = field(
        default=30.0,
        metadata={"help": "Seconds that running requests get to finish once told to stop."},
    )
    access_log: bool = field(
        default=False, metadata={"help": "Log one line per request, without its contents."}
    )

    def __post_init__(self) -> None:
        check_parser_names(self.tool_parser, self.reasoning_parser)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port {self.port} is not between 0 and 65535.")
        if not all(key.strip() for key in self.api_keys):
            raise SettingsError(
                "An API key is empty.", remedy="Leave it out to serve without authentication."
            )
        for name in ("max_body_bytes", "max_prompts", "request_timeout_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"{name} must be above 0, not {value}.")
        if self.drain_timeout_s < 0:
            raise SettingsError(f"drain_timeout_s must not be negative, as {self.drain_timeout_s}.")
