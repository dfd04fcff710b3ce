"""One hierarchy of errors: what happened, for whom, whether trying again can help, and what to do about it."""

from __future__ import annotations


class StaylineError(Exception):
    """Base of all errors that Stayline raises on purpose.

    Attributes:
        message: what happened, in one sentence.
        fix: what the reader can do about it; empty when nothing is to be done.
        retryable: whether the same request may succeed later.
    """

    retryable: bool = False

    def __init__(self, message: str, *, fix: str = "", retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class ConfigError(StaylineError):
    """A setting, an agent or a scenario is wrong. Raised at start, before a caller can hear silence."""


class ProviderError(StaylineError):
    """A speech or language provider failed.

    Attributes:
        provider: e.g. "deepgram".
        status: the HTTP status or websocket close code, if there was one.
        retry_after: seconds that the provider asked to wait, if it said so.
    """

    def __init__(
        self,
        provider: str,
        message: str,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after: float | None = None,
        fix: str = "",
    ) -> None:
        super().__init__(f"{provider}: {message}", fix=fix, retryable=retryable)
        self.provider = provider
        self.status = status
        self.retry_after = retry_after


class ToolError(StaylineError):
    """Raised by a tool's author: the tool failed, and the agent may read why.

    `ToolError("no such order")` is final; `ToolError("warehouse busy", retryable=True)` is retried under
    the tool's policy. Any other exception is retried too, and the agent is told only that the tool failed.
    """


class RejectCall(StaylineError):
    """Raised in an `on_call` policy: the call is refused and the caller hears the message."""

    def __init__(self, say: str = "Sorry, we cannot take your call right now. Goodbye.") -> None:
        super().__init__(say)
        self.say = say
