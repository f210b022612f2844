"""Everything that can go wrong by someone's doing, so that every layer may raise it and the doors
may translate it.

A message says what is wrong and where; the remedy says what to do about it.
"""


class PenstockError(Exception):
    """A failure with an understandable cause. `str()` gives the message, then the remedy."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class ModelError(PenstockError):
    """A model directory, or a file in it, that cannot be served."""


class SettingsError(PenstockError):
    """Settings that contradict each other, the model or the machine."""


class InvalidRequest(PenstockError):
    """A request that can never be answered as asked. `param` names the field at fault."""

    def __init__(self, message: str, *, param: str | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.param = param


class Overloaded(PenstockError):
    """The queue is full. The same request will be welcome in about `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, remedy=f"Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class Unavailable(PenstockError):
    """The server is draining, or its engine is not running at the moment."""


class EngineFailed(PenstockError):
    """The engine died or gave up while it held this request."""


class NoSuchServer(PenstockError):
    """There is no server where one was looked for, or it does not speak as it should."""


class ContextTooLong(InvalidRequest):
    """Prompt and output together would be longer than the model's context."""

    def __init__(self, prompt_len: int, max_tokens: int | None, max_model_len: int) -> None:
        num_output = 1 if max_tokens is None else max_tokens
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens, however you requested "
            f"{prompt_len + num_output} tokens "
            f"({prompt_len} in the prompt, {num_output} in the output).",
            param="prompt" if prompt_len >= max_model_len else "max_tokens",
            remedy="Shorten the prompt or ask for fewer tokens.",
        )
        self.prompt_len = prompt_len
        self.max_model_len = max_model_len
