"""The cluster of the protocol's tests: nodes, their database and anchors, and what is observed of them step by step.

Words are those of the protocol (docs/adr/0017-commit-anchor-reply.md). A violation is not raised but noted, so that a
test can also say that there is one: when a rule was taken out.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from keyvault_lite.ledger.anchor.record import BLOCK
from keyvault_lite.model.identity import Role
from keyvault_lite.model.keys import KeySpec, KeyType, Purpose
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import CreateKey, Encrypt, Request, RevokeKey, RotateKey, UpdateService
from keyvault_lite.settings import Settings
from tests.suites.protocol import attacker
from tests.suites.protocol.log_oracle import Facts, judge
from tests.suites.protocol.node import Ask, Reply, durable, main
from tests.support.harness import Harness, create_vault, settings_for
from tests.support.paths import ROOT, SOURCE

PATIENCE: Final = 30.0
AES: Final = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
STEPS: Final = {"computed": "commit", "committed": "anchored", "anchored": "reply"}
"""What a node does next, from where it stands."""
BROKEN: Final = {"integrity_violation", "outcome_unknown", "audit_unavailable", "overloaded"}
"""Codes of what is no answer to the request."""

ENCRYPT: Final = Encrypt(KeyRef("k1"), plaintext=b"x")
REVOKE: Final = RevokeKey(KeyRef("k1"))
ROTATE: Final = RotateKey(KeyRef("k1"))
CREATE: Final = CreateKey(AES, "k2")
DEMOTE_1: Final = UpdateService("adm1", active=False)
DEMOTE_2: Final = UpdateService("adm2", active=False)
MANAGEMENT: Final = (RevokeKey, RotateKey, CreateKey, UpdateService)


@dataclass(frozen=True)
class TemplateVaults:
    """A vault to begin with: a key `k1` and two ADMINs. Copied for each cluster."""

    folder: Path
    master: str
    tokens: dict[str, str]
    size: int


def create_template_vaults(folder: Path) -> TemplateVaults:
    master, token = create_vault(folder)
    harness = Harness(settings_for(folder, master), token)
    harness.key("k1")
    tokens = {name: harness.service(name, role=Role.ADMIN)[1] for name in ("adm1", "adm2")}
    harness.ask(UpdateService("admin", active=False), tokens["adm1"])
    harness.admin = tokens["adm1"]
    size = harness.size
    harness.close()
    return TemplateVaults(folder, master, tokens, size)


class Context:
    """Where processes come from: a server that has imported everything and forks, so that a node starts at once."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.suites.protocol.node"])

    def start(self, *arguments: Any) -> tuple[Any, Any]:  # noqa: ANN401
        here, there = self._context.Pipe()
        process = self._context.Process(target=main, args=(there, *arguments), daemon=True)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join((str(SOURCE), str(ROOT)))  # for the server's own imports
        try:
            process.start()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
        there.close()
        return process, here


CONTEXT: Final = Context()


@dataclass
class Pending:
    """An operation under way."""

    request: Request
    request_id: bytes
    after_revoke: bool
    """Whether it began after a revocation of k1 was acknowledged."""


@dataclass
class Acknowledged:
    request: Request
    changed: bool


@dataclass
class Node:
    """One node, as the parent sees it. `stage` is where it stands between two steps."""

    name: str
    cluster: "Cluster"
    path: Path
    anchor: Path | str
    stage: str = "down"
    pending: list[Pending] = field(default_factory=list)
    lost: list[Request] = field(default_factory=list)
    """What had been acknowledged before its newest COMMIT and is not in the log that it wrote to."""
    process: Any = None
    pipe: Any = None

    # Life

    def start(self) -> bool:
        """Open the vault, with every check of a start; false if it is refused."""
        settings = self.cluster.settings(self)
        self.process, self.pipe = CONTEXT.start(settings, self.cluster.notes, self.cluster.removed)
        said, *how = self._hear()
        self.stage = "idle" if said == "up" else "refused"
        if said == "refused":
            self.cluster.refused(how[0])
            self._end()
        else:
            self.cluster.started(self)
        return bool(said == "up")

    def kill(self) -> None:
        self._end()
        self.stage = "down"

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.pipe.close()
        self.process = None
        self.pending = []

    def _hear(self) -> tuple[Any, ...]:
        assert self.pipe.poll(PATIENCE), f"{self.name} says nothing"
        said: tuple[Any, ...] = self.pipe.recv()
        assert said[0] != "defect", said[1]
        return said

    # Steps

    def compute(self, *requests: Request) -> None:
        assert self.stage == "idle", self.stage
        self.pending = [Pending(one, os.urandom(16), self.cluster.revoked) for one in requests]
        self.pipe.send(
            ("compute", *(Ask(one.request, self.cluster.token(one.request), one.request_id) for one in self.pending))
        )
        assert self._hear() == ("computed",)
        self.stage = "computed"

    def commit(self) -> list[Reply]:
        """Lock, check, append, COMMIT. Returns replies if it comes no further."""
        assert self.stage == "computed", self.stage
        acknowledged = dict(self.cluster.acknowledged)
        self.pipe.send(("commit",))
        return self._next(acknowledged)

    def anchored(self) -> list[Reply]:
        """Sign, and write the anchor. Returns replies if it comes no further."""
        assert self.stage == "committed", self.stage
        self.pipe.send(("go",))
        return self._next()

    def reply(self) -> list[Reply]:
        assert self.stage == "anchored", self.stage
        self.pipe.send(("go",))
        return self._next()

    def _next(self, acknowledged: dict[bytes, Acknowledged] | None = None) -> list[Reply]:
        said, *how = self._hear()
        if acknowledged is not None and (said == "committed" or how[0][0].code == "outcome_unknown"):
            self.cluster.observe(self)
        if acknowledged is not None and said == "committed":
            there = {entry["request_id"] for entry in attacker.read_log(self.path)}
            self.lost = [one.request for key, one in acknowledged.items() if key not in there]
        if said != "replied":
            self.stage = said
            if said == "anchored":
                self.cluster.observe(self)
            return []
        replies: list[Reply] = how[0]
        self._judge(replies)
        return replies

    def _judge(self, replies: Sequence[Reply]) -> None:
        self.stage = "idle"
        self.cluster.compare_signed()
        for one, reply in zip(self.pending, replies, strict=True):
            if reply.entry is None and reply.code == "unauthenticated":
                continue  # an answer, of which the log keeps counts alone
            if reply.entry is None:
                assert reply.code in BROKEN, reply
                if reply.code == "integrity_violation":
                    self.stage = "halted"
                    self.cluster.false_alarm("at commit", reply.detail)
                elif reply.code != "outcome_unknown":
                    self.cluster.false_alarm("as a refusal", reply.detail)
                continue
            if one.after_revoke and one.request is ENCRYPT and not reply.code:
                self.cluster.note("SUCCESS AFTER REVOKE was acknowledged")
            if self.lost:
                self.cluster.note("SERVED ON A DATABASE THAT LOST ACKNOWLEDGED ENTRIES")
            changed = isinstance(one.request, MANAGEMENT) and not reply.code
            self.cluster.acknowledged[one.request_id] = Acknowledged(one.request, changed)
            self.cluster.revoked |= one.request is REVOKE and not reply.code
        self.pending, self.lost = [], []

    def finish(self) -> list[str]:
        """The steps that are left; the codes of the replies, empty for what was done. None of a node that is down."""
        replies: list[Reply] = []
        while self.stage in STEPS and not replies:
            replies = getattr(self, STEPS[self.stage])()
        return [one.code for one in replies]

    def ask(self, *requests: Request) -> list[str]:
        """All steps of one transaction."""
        if self.stage == "idle":
            self.compute(*requests)
        return self.finish()

    # Faults

    def fail_commit(self, fault: str) -> None:
        """The next COMMIT fails: `applied` in spite of it, or `aborted`."""
        leaked = self.cluster.folder / f"leaked-{len(self.cluster.leaked)}.db"
        if fault == "aborted":
            self.cluster.leaked.append(leaked)
        self.pipe.send(("fail_commit", fault, leaked))

    def flush(self) -> None:
        self.pipe.send(("flush",))
        assert self._hear() == ("flushed",)

    def move(self, path: Path) -> None:
        """The attacker gives it a database of its own, which is the same at first."""
        attacker.copy_database(self.path, path)
        self.path = path
        self.cluster.attacked = True
        if self.stage in {"idle", "computed"}:
            self.pipe.send(("move", path))
            assert self._hear() == ("moved",)


class Cluster:
    """Nodes that begin on one database. `own_anchors`: each has an anchor of its own, as on hosts of their own."""

    def __init__(
        self,
        folder: Path,
        template_vaults: TemplateVaults,
        *,
        removed: Sequence[str] = (),
        nodes: int = 2,
        own_anchors: bool = False,
        always: bool = False,
        witness: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.template_vaults, self.removed = folder, template_vaults, tuple(removed)
        self.always, self.witness = always, witness
        folder.mkdir(exist_ok=True)
        self.path = folder / "vault.db"
        self.notes = folder / "signed"
        self.notes.touch()
        attacker.copy_database(template_vaults.folder / "vault.db", self.path)
        self.violations: list[str] = []
        self.attacked = False
        self.revoked = False
        self.acknowledged: dict[bytes, Acknowledged] = {}
        self.leaked: list[Path] = []
        self.history: list[Path] = []
        """Every state the database was ever in; the attacker has them all."""
        self.keep()
        self.nodes = []
        for name in "AB"[:nodes]:
            anchor: Path | str = folder / f"{name if own_anchors else 'shared'}.anchor"
            if witness is not None:
                anchor = witness["anchor"]
            elif not Path(anchor).exists():
                shutil.copy(template_vaults.folder / "vault.db.anchor", anchor)
                shutil.copy(anchor, durable(Path(anchor)))
            self.nodes.append(Node(name, self, self.path, anchor))

    def settings(self, node: Node) -> Settings:
        return Settings.model_validate(
            {
                "master_key": self.template_vaults.master,
                "database_url": f"sqlite:///{node.path}",
                "anchor": str(node.anchor),
                "anchor_sync": "always" if self.always else "second",
                "witness_key": None if self.witness is None else self.witness["witness_key"],
                "log_level": "error",
            }
        )

    def token(self, request: Request) -> str:
        """Of whoever asks for it: each ADMIN deposes itself, so that it never lacks the authority."""
        return self.template_vaults.tokens["adm2" if request is DEMOTE_2 else "adm1"]

    @property
    def is_final(self) -> bool:
        """Whether a start that is accepted decides for all: one node, or one anchor."""
        return len({node.anchor for node in self.nodes}) == 1

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    # What is observed

    def note(self, violation: str) -> None:
        if violation not in self.violations:
            self.violations.append(violation)

    def false_alarm(self, where: str, detail: str) -> None:
        if not self.attacked:
            self.note(f"FALSE ALARM {where}: {detail}")

    def refused(self, detail: str) -> None:
        if not self.attacked:
            self.note(f"FALSE REFUSAL at start: {detail}")

    def started(self, node: Node) -> None:
        there = {entry["request_id"] for entry in attacker.read_log(node.path)}
        gone = [one for key, one in self.acknowledged.items() if key not in there]
        if gone and self.is_final:
            kind = "MANAGEMENT" if any(one.changed for one in gone) else "DATA"
            self.note(f"{kind} ROLLBACK ACCEPTED AT START")
        self.observe(node)

    def observe(self, node: Node) -> None:
        """Judge the log that the node has just written to."""
        for problem in judge(node.path, self.template_vaults.size, attacked=self.attacked):
            self.note(problem)
        self.compare_signed()
        self.keep(node.path)

    def compare_signed(self) -> None:
        """Of any two heads that were ever signed, one extends the other."""
        signed = sorted((json.loads(line) for line in self.notes.read_text().splitlines()), key=len)
        if any(longer[: len(one)] != one for one, longer in pairwise(signed)):
            self.note("EQUIVOCATION")

    def keep(self, path: Path | None = None) -> None:
        copy = self.folder / f"history-{len(self.history)}.db"
        attacker.copy_database(path or self.path, copy)
        self.history.append(copy)

    # What the attacker does, and what happens

    def roll_back(self, to: int = 0, path: Path | None = None) -> None:
        """The whole database is what it was."""
        self.attacked = True
        attacker.copy_database(self.history[to], path or self.path)

    def put_back_rows(self, of: int = 0, path: Path | None = None) -> None:
        self.attacked = True
        attacker.put_back_rows(self.history[of], path or self.path)

    def forge(self, of: int = 0, *, with_head: bool = True, path: Path | None = None) -> None:
        """A forged entry says that the state is that of an older copy; its rows are put there, and the head follows."""
        self.attacked = True
        target = path or self.path
        root = attacker.read_stored_head(self.history[of])["state_root"]
        attacker.forge(target, state_root=root, with_head=with_head)
        attacker.put_back_rows(self.history[of], target)

    def complete_aborted(self, which: int = 0, path: Path | None = None) -> None:
        self.attacked = True
        attacker.copy_database(self.leaked[which], path or self.path)

    def lose_power(self, node: Node, *, slots: Sequence[str] = ("old", "old")) -> None:
        """The host of this node loses power: with it every node that has the same anchor file.

        What was not flushed of the file's two slots is lost (`old`), kept (`new`) or torn.
        """
        for one in self.nodes:
            if one.anchor == node.anchor:
                one.kill()
        if self.witness is None:
            anchor = Path(node.anchor)
            lose_unflushed(anchor, slots)

    def facts(self) -> Facts:
        return Facts.read(self.path)


def lose_unflushed(anchor: Path, slots: Sequence[str]) -> None:
    old = durable(anchor).read_bytes().ljust(2 * BLOCK, b"\x00")
    new = anchor.read_bytes().ljust(2 * BLOCK, b"\x00")
    kept = b""
    for slot, fate in enumerate(slots):
        before, after = (raw[slot * BLOCK :][:BLOCK] for raw in (old, new))
        torn = after[:100] + before[100:]
        kept += {"old": before, "new": after, "torn": after if before == after else torn}[fate]
    anchor.write_bytes(kept + old[2 * BLOCK :])
    shutil.copy(anchor, durable(anchor))


@contextmanager
def cluster(folder: Path, template_vaults: TemplateVaults, **how: Any) -> Iterator[Cluster]:  # noqa: ANN401
    """A make_cluster whose nodes are up."""
    made = Cluster(folder, template_vaults, **how)
    try:
        for node in made.nodes:
            node.start()
        yield made
    finally:
        made.close()
