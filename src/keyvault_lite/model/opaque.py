"""What is made for each request, and shows nothing of what it carries."""

from typing import Any

from msgspec import Struct


class Opaque(Struct, frozen=True):
    """Base of what may hold a plaintext, a secret or a submitted value. It shows its kind, never a field.

    All or nothing: a field that is added later cannot be forgotten.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # A Struct has one of its own, with every field; rich and tools that follow its protocol prefer it to `repr`.
        return []
