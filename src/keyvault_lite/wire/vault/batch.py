"""Batches: many bodies of one operation, each built, decided and recorded by itself, answered in order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from keyvault_lite.dialects.vault.requests import MAX_TRANSIT_BATCH, TransitBatch
from keyvault_lite.engine.cooperative import Steps, run_to_end
from keyvault_lite.model.errors import InvalidRequest, KeyVaultError, TooLarge
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.replies import BatchReply
from keyvault_lite.model.requests import KeyRequest
from keyvault_lite.wire.http import has_body
from keyvault_lite.wire.vault.errors import describe
from keyvault_lite.wire.vault.route import RawReply, VaultCall
from keyvault_lite.wire.vault.values import Fields, objects, optional_number

BATCH: Final = "batch_input"
REFERENCE: Final = "reference"
PARTIAL: Final = "partial_failure_response_code"
FAILED: Final = 400
QUICK_BATCH: Final = 100
"""Items that are built at once, without holding anybody up."""
Single = Callable[[KeyRef, Fields, Fields], KeyRequest]
"""From the key, the fields of an item and the fields round the batch to a request."""


def is_batch(fields: Fields) -> bool:
    """Whether the fields are those of a batch: null is none, as clients in typed languages send what is not there."""
    return fields.get(BATCH) is not None


def build_batch(
    call: VaultCall, action: Action, single: Single, *, one_kind: bool = False
) -> TransitBatch | Steps[TransitBatch]:
    """The batch, or the steps of building a large one. An item that cannot be built is its error in the same place.

    With `one_kind` all items have a context or none has.
    """
    items = objects(call.fields, BATCH)
    if not items:
        raise InvalidRequest("missing batch input to process")
    if len(items) > MAX_TRANSIT_BATCH:  # before any work is done on them
        raise TooLarge(f"a batch has at most {MAX_TRANSIT_BATCH} items")
    if one_kind and len({bool(item.get("context")) for item in items}) > 1:
        raise InvalidRequest("context should be set either in all the request blocks or in none")
    steps = _build(call, action, single, items)
    return run_to_end(steps) if len(items) <= QUICK_BATCH else steps


def _build(call: VaultCall, action: Action, single: Single, items: Sequence[Fields]) -> Steps[TransitBatch]:
    key = call.key
    built = []
    for item in items:
        built.append(_item(key, item, call.fields, single))
        yield
    return TransitBatch(key=key, of=action, items=tuple(built))


def _item(key: KeyRef, item: Fields, common: Fields, single: Single) -> KeyRequest | KeyVaultError:
    try:
        return single(key, item, common)
    except KeyVaultError as error:
        return error


def outcome(
    result: BatchReply,
    fields: Fields,
    show: Callable[[Any], dict[str, object]],
    *,
    failed: Mapping[str, object],
    strict: bool,
) -> RawReply:
    """What came of each, with its reference. If `strict`, failures show in the status: as asked, unless all failed."""
    written, failures = [], 0
    for item, asked in zip(result.items, objects(fields, BATCH), strict=True):
        if isinstance(item, KeyVaultError):
            failures += 1
            one = {**failed, "error": describe(item, (FAILED, "encryption key not found"))[1]}
        else:
            one = show(item)
        reference = asked.get(REFERENCE, "")
        one[REFERENCE] = reference if isinstance(reference, str) else ""
        written.append(one)
    status = 200
    if strict and failures:
        partial = optional_number(fields, PARTIAL)
        usable = partial is not None and has_body(partial) and failures < len(written)
        status = partial if usable and partial is not None else FAILED
    return RawReply({"batch_results": written}, status=status)
