"""Everything that can go wrong by someone's doing, so that every layer may raise it and the doors may translate it.

A message says what is wrong and where; the remedy says what to do about it.
"""


class PenstockError(Exception):
    """A failure with a cause a person can understand. `str()` gives the message, then the remedy."""

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
    """A request that can never be answered as asked. `param` names the field at fault, if one is."""

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
