"""Rules taken out of the product, one at a time, so that a test can show what each of them is for.

A rule is a piece of source text in one function. It is looked up there, replaced, and the function compiled anew in its
own module: nothing in the product knows of it, and a rule that was rewritten fails the lookup instead of a test.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol

from keyvault_lite.ledger.anchor import files
from keyvault_lite.ledger.commit import catch_up, publisher, replica, write_set, writer
from keyvault_lite.ledger.state import head

Owner = type[Any] | ModuleType


class Set(Protocol):
    """setattr, or pytest's that is undone."""

    def __call__(self, owner: Any, name: str, value: Any, /) -> None: ...  # noqa: ANN401


@dataclass(frozen=True)
class Removal:
    """`text` of the function `name` becomes `instead`."""

    owner: Owner
    name: str
    text: str
    instead: str

    def apply(self, put: Set = setattr) -> None:
        function = inspect.getattr_static(self.owner, self.name)
        plain: Callable[..., Any] = getattr(function, "__func__", function)
        source: str = getattr(plain, "source", None) or textwrap.dedent(inspect.getsource(plain))
        if source.count(self.text) != 1:
            raise AssertionError(f"{self.owner.__name__}.{self.name} has not once: {self.text}")
        changed, made = source.replace(self.text, self.instead), dict[str, Any]()
        exec(changed, plain.__globals__, made)
        new = made[self.name]
        getattr(new, "__func__", new).source = changed  # for another removal from the same function
        for owner in self._owners(plain):
            put(owner, self.name, new)

    def _owners(self, plain: Callable[..., Any]) -> list[Owner]:
        """The class; of a function of a module, every module that has imported it by name."""
        if isinstance(self.owner, type):
            return [self.owner]
        loaded = [module for name, module in sys.modules.items() if name.startswith("keyvault_lite.")]
        return [module for module in loaded if vars(module).get(self.name) is plain]


_SIGN: Final = "write_set.store(self.connection, self._database); self.publisher.sign(write_set.after)"

REMOVALS: Final[dict[str, tuple[Removal, ...]]] = {
    # The rules of the protocol (docs/adr/0017-commit-anchor-reply.md).
    "R1": (
        Removal(write_set.WriteSet, "is_stale", "request.since != self._snapshot_version or self._overtaken or ", ""),
    ),
    "R2": (
        Removal(replica.Replica, "catch_up", "head.size < old.size or head.epoch < old.epoch", "False"),
        # As if this process knew nothing.
        Removal(catch_up, "new_entries", "tiles = t", "tip = LogTip.before_any_entry(authority, b''); tiles = t"),
        Removal(replica.Replica, "_follow", "head.state_seq != tip.head.state_seq", "True"),
        Removal(catch_up, "apply_changes", "newer_than=state.sequence", "newer_than=0"),
    ),
    "R3": (
        Removal(
            catch_up,
            "apply_changes",
            "news.findings or tree.root() != head.state_root",
            "False",
        ),
    ),
    "R4": (Removal(head, "read_head", "not genuine", "False"),),
    "R5": (Removal(writer.Writer, "_fill", "write_set.store(self.connection, self._database)", _SIGN),),
    "R6": (
        Removal(files.FileAnchor, "write", "self._always or counted or mark.state_seq > self._covered", "self._always"),
    ),
    "R7": (
        Removal(publisher.CheckpointPublisher, "check", "held != mark.hash", "False"),
        Removal(files.FileAnchor, "write", "now is not None and now != before", "False"),
        Removal(
            files.FileAnchor,
            "write",
            "now is not None and 0 < now.size >= mark.size and (now.size, now.hash) != (mark.size, mark.hash)",
            "False",
        ),
    ),
    # Parts of R7: what each of them stops that the others do not.
    "R7, extend": (Removal(publisher.CheckpointPublisher, "check", "held != mark.hash", "False"),),
    "R7, compare": (Removal(files.FileAnchor, "write", "now is not None and now != before", "False"),),
    "R7, before signing": (
        Removal(
            files.FileAnchor, "write", "now = self._newest(descriptor)", "sign(None); now = self._newest(descriptor)"
        ),
    ),
    "R6, always": (
        Removal(
            files.FileAnchor,
            "write",
            "self._always or counted or mark.state_seq > self._covered",
            "mark.state_seq > self._covered",
        ),
    ),
}
