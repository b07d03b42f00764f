"""One attempt at a request: authenticate, authorise, act, and write down how it went. Pure but for the cryptography.

It is called on a state and may be called again on a later one; each call evaluates everything again.
"""

import hashlib
import json
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Final

from msgspec import structs

from keyvault_lite.access.authenticate import AuthenticationFailed, Authenticator
from keyvault_lite.access.authorize import check_key, check_may_know, check_role
from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.engine.admins import check_admins_left
from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.engine.dialect import Operations
from keyvault_lite.engine.handler import HandlerContext, HandlerResult, Memo
from keyvault_lite.ledger.ledger import Ledger
from keyvault_lite.ledger.state.outcome import Outcome, StoredReply
from keyvault_lite.ledger.state.snapshot import State
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import Conflict, Forbidden, IntegrityViolation, InternalError, KeyVaultError, NotFound
from keyvault_lite.model.evidence import Action, Draft, Result
from keyvault_lite.model.identity import Credential, Principal, Role
from keyvault_lite.model.keys import Key
from keyvault_lite.model.names import is_id, is_name
from keyvault_lite.model.replies import BatchReply, Replayed
from keyvault_lite.model.requests import (
    Batch,
    Idempotency,
    KeyRequest,
    Origin,
    Rejected,
    Repair,
    Request,
)
from keyvault_lite.observe import logger

KEEP_REPLIES: Final = 24 * 3600 * 1_000_000
"""Microseconds."""
REPLAYED: Final = "replayed"

log = logger("engine")


class Attempt:
    """A request with its credential and origin, ready to be evaluated on a state."""

    __slots__ = (
        "_action",
        "_authenticator",
        "_credential",
        "_keyring",
        "_ledger",
        "_memo",
        "_operations",
        "_origin",
        "_request",
        "refused",
    )

    def __init__(
        self,
        request: Request,
        credential: Credential,
        origin: Origin,
        *,
        authenticator: Authenticator,
        keyring: Keyring,
        ledger: Ledger,
        operations: Operations,
    ) -> None:
        self._operations = operations
        self._request = request
        self._credential = credential
        self._origin = origin
        self._authenticator = authenticator
        self._keyring = keyring
        self._ledger = ledger
        self._memo: Memo = {}
        self.refused: Principal | None = None
        """The principal that was authenticated and not admitted."""
        self._action: Action = request.of if isinstance(request, (Rejected, Batch)) else request.action

    def __call__(self, state: State) -> Outcome:
        """The outcome on this state. Every refusal is an outcome too; nothing is raised."""
        admitted = self.admit(state)
        return self.act(admitted) if isinstance(admitted, HandlerContext) else admitted

    def admit(self, state: State) -> HandlerContext | Outcome:
        """Authenticate and authorise: the context to act on, or the outcome of a refusal."""
        now = self._ledger.now()
        try:
            principal = self._authenticator.authenticate(self._credential, state, now)
        except AuthenticationFailed as refusal:
            return Outcome((self._unauthenticated(refusal),), refusal.cause or refusal)
        except IntegrityViolation as error:
            return Outcome((self._unjudged(error),), error)
        key: Key | None = None
        try:
            request = self._request
            early = isinstance(request, Rejected) and request.early
            if not early:
                check_role(principal, request, self._action)
            if isinstance(request, Rejected):
                # The key is for the entry only: whether it verifies does not change what is wrong with the request.
                with suppress(IntegrityViolation):
                    key = None if request.key is None else state.find_key(request.key)
                raise request.error  # noqa: TRY301  (refused like everything below, by one road)
            if isinstance(request, KeyRequest):
                names = self._operations.key_names(request)
                if names is not None:
                    located = names.locate(request, state, now)
                    key = located.key
                    key = names.admit(request, located, principal)
                else:
                    try:
                        key = state.find_key(request.key)
                    except IntegrityViolation:
                        check_may_know(principal, request.key, state)
                        raise
                    key = check_key(principal, key, self._action)
            source = self._origin.source
            ctx = HandlerContext(
                principal, state, self._keyring, self._ledger, now, self._memo, named_key=key, source=source
            )
            if key is not None and not isinstance(request, Batch):  # of a batch each item is narrowed
                self._operations.narrow(request, ctx)
            return ctx
        except Exception as error:  # noqa: BLE001  (a defect is recorded like a refusal)
            self.refused = principal
            return self._failed(principal, key or self._entry_key(error, state, now), error)

    def act(self, ctx: HandlerContext) -> Outcome:
        """The outcome of what was admitted."""
        try:
            if isinstance(self._request, Batch):
                return run_to_end(self._batch(self._request, ctx))
            return self._single(self._request, ctx)
        except Exception as error:  # noqa: BLE001  (as above)
            key = ctx.named_key or self._entry_key(error, ctx.state, ctx.now)
            return self._failed(ctx.principal, key, error)

    def in_steps(self, batch: Batch, state: State) -> Steps[Outcome]:
        """As calling it, for a batch, item by item: others may have their turn in between."""
        admitted = self.admit(state)
        if isinstance(admitted, Outcome):
            return admitted
        try:
            return (yield from self._batch(batch, admitted))
        except Exception as error:  # noqa: BLE001  (as above)
            return self._failed(admitted.principal, admitted.named_key, error)

    def _entry_key(self, error: Exception, state: State, now: int) -> Key | None:
        """The key that a denied request was about, so that its history shows the attempt. The answer is the same."""
        request = self._request
        if isinstance(error, Forbidden):
            with suppress(KeyVaultError):
                names = self._operations.key_names(request)
                if names is not None:
                    return names.denied(request, state, now)
                if isinstance(request, (KeyRequest, Rejected)) and request.key is not None:
                    return state.find_key(request.key)
        return None

    def _failed(self, principal: Principal, key: Key | None, error: Exception) -> Outcome:
        if not isinstance(error, KeyVaultError):
            # The entry says that something failed, the log where; neither says with which data.
            request_id = self._origin.request_id.hex()
            log.error(
                "a handler failed", exc_info=error, extra={"operation": self._action.value, "request_id": request_id}
            )
            error = InternalError("an internal error occurred")
        return Outcome((self._refused(principal, key, error),), error)

    def _single(self, request: Request, ctx: HandlerContext) -> Outcome:
        idempotency = self._origin.idempotency if request.idempotent else None
        if idempotency is not None:
            replayed = self._replay(idempotency, ctx)
            if replayed is not None:
                return Outcome(
                    (structs.replace(self._succeeded(request, ctx, replayed), reason=REPLAYED),), replayed.result
                )
        done = self._operations.handlers[type(request)](request, ctx)
        if done.change is not None and self._ledger.frozen and type(request) is not Repair:
            raise IntegrityViolation("stored objects are in quarantine: nothing can be changed until `kvl repair`")
        if done.change is not None and type(request) is not Repair:  # which records what is lost already
            check_admins_left(done.change, ctx.state)
        return Outcome(
            (self._succeeded(request, ctx, done),),
            done.result,
            done.change,
            None if idempotency is None else self._keep(idempotency, ctx, done),
        )

    def _batch(self, batch: Batch, ctx: HandlerContext) -> Steps[Outcome]:
        results: list[object] = []
        drafts: list[Draft] = []
        for place, item in enumerate(batch.items):
            try:
                if isinstance(item, KeyVaultError):
                    raise item
                at = structs.replace(ctx, place=place)
                self._operations.narrow(item, at)
                done = self._operations.handlers[type(item)](item, at)
            except KeyVaultError as error:
                drafts.append(self._refused(ctx.principal, ctx.key, error))
                results.append(error)
            else:
                drafts.append(self._succeeded(item, ctx, done))
                results.append(done.result)
            yield
        return Outcome(drafts, BatchReply(tuple(results)))

    # What the log says

    def _succeeded(self, request: Request, ctx: HandlerContext, done: HandlerResult) -> Draft:
        origin, key = self._origin, ctx.named_key
        context = request.bound_context
        return Draft(
            action=request.action,
            result=Result.SUCCESS,
            request_id=origin.request_id,
            service_id=ctx.principal.service_id,
            key_id=done.key_id if key is None else key.id,
            key_version=done.key_version,
            client_request_id=origin.client_request_id,
            source=origin.source,
            context_digest=self._keyring.redact_context(ctx.key.id, context) if context else None,
            bytes_in=done.bytes_in,
            bytes_out=done.bytes_out,
            subject=done.subject,
            operation=origin.operation,
            comment=done.comment,
        )

    def _refused(self, principal: Principal, key: Key | None, error: KeyVaultError) -> Draft:
        origin, request = self._origin, self._request
        denied = isinstance(error, Forbidden) or (isinstance(error, NotFound) and principal.role is Role.SERVICE)
        ref = request.key if isinstance(request, (KeyRequest, Rejected)) else None
        shown = None if ref is None else self._safe_ref(ref)  # whether it is written or not: alike for every key
        quarantined = isinstance(error, IntegrityViolation) and ref is not None and is_id(ref)
        return Draft(
            action=self._action,
            result=Result.DENIED if denied else Result.ERROR,
            request_id=origin.request_id,
            service_id=principal.service_id,
            key_id=key.id if key is not None else (ref if quarantined else None),  # type: ignore[arg-type]
            reason=error.code,
            client_request_id=origin.client_request_id,
            source=origin.source,
            key_ref=shown if key is None and not quarantined else None,
            operation=origin.operation,
        )

    def _unauthenticated(self, refusal: AuthenticationFailed) -> Draft:
        origin = self._origin
        return Draft(
            action=Action.AUTHENTICATE,
            result=Result.DENIED,
            request_id=origin.request_id,
            service_id=refusal.service_id,
            reason=refusal.fault.value,
            # What a stranger chose to send is not kept.
            client_request_id=None if refusal.service_id is None else origin.client_request_id,
            source=origin.source,
            operation=origin.operation,
        )

    def _unjudged(self, error: IntegrityViolation) -> Draft:
        """The caller's own record does not verify: no authority is taken from it, and nothing is said about it."""
        refused = self._unauthenticated(AuthenticationFailed(None))
        return structs.replace(refused, result=Result.ERROR, reason=error.code)

    def _safe_ref(self, ref: str) -> str:
        """What the caller typed, if it could be a key; else a keyed digest: it may be a token in the wrong place."""
        return ref if is_name(ref) or is_id(ref) else self._keyring.redact_text(ref)

    # Idempotency

    def _replay(self, idempotency: Idempotency, ctx: HandlerContext) -> HandlerResult | None:
        """What was done first, as far as its repetition tells of it: the reply as written, and what it was about."""
        digest = _key_digest(idempotency)
        kept = ctx.state.reply(ctx.principal.service_id, digest)
        if kept is None or kept.expires_at <= ctx.now:
            return None
        if kept.body_digest != idempotency.body_digest:
            raise Conflict("this Idempotency-Key was used with another request")
        about, _, body = self._keyring.open_reply(_row_id(kept), _binding(kept), kept.sealed).partition(b"\n")
        key_id, key_version, subject = json.loads(about)
        return HandlerResult(Replayed(body), key_id=key_id, key_version=key_version, subject=subject)

    def _keep(self, idempotency: Idempotency, ctx: HandlerContext, done: HandlerResult) -> StoredReply:
        reply = StoredReply(
            service_id=ctx.principal.service_id,
            key_digest=_key_digest(idempotency),
            body_digest=idempotency.body_digest,
            expires_at=ctx.now + KEEP_REPLIES,
            sealed=b"",
        )
        about = json.dumps([done.key_id, done.key_version, done.subject]).encode()
        text = b"\n".join((about, idempotency.render(done.result)))
        return replace(reply, sealed=self._keyring.seal_reply(_row_id(reply), _binding(reply), text))


def _key_digest(idempotency: Idempotency) -> bytes:
    return hashlib.sha256(pae("idempotency-key", idempotency.key)).digest()


def _row_id(reply: StoredReply) -> str:
    """The id that the reply's container carries: follows from service and key, which are the row's primary key."""
    digest = hashlib.sha256(pae("idempotency-row", reply.service_id, reply.key_digest)).digest()
    return str(uuid.UUID(bytes=digest[:16]))


def _binding(reply: StoredReply) -> tuple[str | bytes | int, ...]:
    return (reply.service_id, reply.key_digest, reply.body_digest, reply.expires_at)
