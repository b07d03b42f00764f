"""A process that dies while it replaces the master key: the vault opens, by the old key, the new one, or either."""

from contextlib import suppress
from dataclasses import replace

import pytest

from keyvault_lite.crypto.root import MasterKey, WrongMasterKey
from keyvault_lite.ledger.storage import driver
from keyvault_lite.model.errors import Conflict
from keyvault_lite.model.evidence import Action
from keyvault_lite.model.names import KeyRef
from keyvault_lite.model.requests import Decrypt, Encrypt
from keyvault_lite.operator.rotate_master_key import rotate_master_key
from keyvault_lite.operator.verify import verify_vault
from tests.suites.crash.test_named_points import die, order
from tests.suites.crash.workload import ORDERS
from tests.support.failpoints import MASTER_KEY, Step
from tests.support.harness import Harness, settings_for
from tests.support.processes import ProcessSpawner

EVERY = [pytest.param(step, way, id=f"{name}-{way}") for name, step in MASTER_KEY.items() for way in step.point.ways]


def sealed_slots(harness: Harness) -> set[bytes]:
    """The keyring as master keys open it, from the database of a vault that is closed."""
    connection = driver.connect(str(harness.path))
    try:
        return {sealed for (sealed,) in connection.execute("SELECT sealed FROM keyring_slots") if sealed}
    finally:
        connection.close()


@pytest.mark.parametrize(("step", "way"), EVERY)
def test_one_of_both_opens_it(left: Harness, spawner: ProcessSpawner, step: Step, way: str) -> None:
    left.open()
    message = left.ask(Encrypt(KeyRef(ORDERS), plaintext=b"from before"))
    before = left.log()
    left.vault.close()
    (former,) = sealed_slots(left)
    _, newer = MasterKey.generate()
    die(spawner, replace(order(left, "rotate master key", step.point, way, call=step.call), new_master=newer))

    assert left.settings.master_key is not None
    folder, older = left.path.parent, left.settings.master_key.get_secret_value()
    for master, opens in ((older, step.old), (newer, step.new)):
        left.settings = settings_for(folder, master)
        if not opens:
            with pytest.raises(WrongMasterKey):
                left.open()
            continue
        assert verify_vault(left.settings).findings == ()
        left.open()
        assert left.ask(Decrypt(KeyRef(ORDERS), None, message.ciphertext, message.encrypted_dek)).plaintext
        assert left.log()[: len(before)] == before
        left.vault.close()

    # Asked again it goes on where it ended, with whichever key still opens the vault.
    with suppress(Conflict):  # where it had come to its end
        rotate_master_key(settings_for(folder, older if step.old else newer), new_key=newer)
    left.settings = settings_for(folder, newer)
    assert verify_vault(left.settings).findings == ()
    left.open()
    assert left.ask(Decrypt(KeyRef(ORDERS), None, message.ciphertext, message.encrypted_dek)).plaintext
    changes = [entry.draft.action for entry in left.log(len(before))].count(Action.MASTER_KEY_ROTATE)
    assert changes == 2, "a slot was added and one was removed, once"
    left.vault.close()
    assert former not in left.files(), "what the old key opens is in no file any more"
    left.open()
