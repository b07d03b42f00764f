"""What every object that holds key material has in common."""

from typing import NoReturn


class Secret:
    """Base of all objects that hold secrets: nothing in `repr`, no copies, no pickles."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        # Also what copy.copy and copy.deepcopy call.
        raise TypeError(f"{type(self).__name__} holds secrets: it is neither copied nor pickled")
