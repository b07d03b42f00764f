"""What can go wrong when a vault is called, by meaning. No message holds a token, a plaintext or a key."""


class ClientError(Exception):
    """Base of all. The message is one sentence for a person."""


class Refused(ClientError):
    """The vault refused. `code` is the API's error code; None if the answer had none."""

    def __init__(
        self, detail: str, *, code: str | None = None, request_id: str | None = None, collection: str = ""
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.request_id = request_id
        self.collection = collection
        """The first segment of the path that was called: `keys`, `services`."""

    @property
    def reference(self) -> str:
        """Code and request id in parentheses, to end a sentence; empty if the vault did not write the refusal."""
        if self.request_id is None:
            return ""
        return f" ({self.code}, request {self.request_id})" if self.request_id else f" ({self.code})"

    def __str__(self) -> str:
        return self.detail + self.reference


class Damaged(Refused):
    """An encrypted file is not as it was written: its structure says so, or the vault opens no part of it."""


class Misconfigured(ClientError):
    """The settings name no vault that can be called: an address, a token or a file of certificates is unusable."""


class InvalidArgument(ClientError):
    """An argument cannot be sent."""


class Unreachable(ClientError):
    """No answer came, after every repetition."""


class UnexpectedAnswer(ClientError):
    """An answer came that no KeyVault Lite server gives."""
