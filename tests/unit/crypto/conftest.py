"""What the tests of secrets share: a keyring, a version of every kind of key, and the external vectors."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyvault_lite.crypto.keyring import Keyring
from keyvault_lite.crypto.root import MasterKey
from keyvault_lite.model.keys import ALGORITHMS, KeySpec, KeyType, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId
from tests.vectors import make_golden

KEY = KeyId(make_golden.uuid(0xA))
AES = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
Made = dict[tuple[KeyType, int | None, Purpose], tuple[KeySpec, KeyVersion]]


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Loads a file of external vectors by its path below their folder."""
    default = Path(__file__).parents[4] / "shared" / "vectors"
    folder = Path(os.environ.get("KEYVAULT_TEST_VECTORS", default))

    def load(path: str) -> Any:  # noqa: ANN401
        file = folder / path
        if not file.exists():
            pytest.skip(f"external vectors are not here ({file}); set KEYVAULT_TEST_VECTORS to their folder")
        return json.loads(file.read_text())

    return load


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(make_golden.FILE.read_text())
    return document


@pytest.fixture(scope="session")
def master() -> MasterKey:
    return MasterKey.generate()[0]


@pytest.fixture(scope="session")
def ring() -> Keyring:
    return Keyring.create()


@pytest.fixture(scope="session")
def made(ring: Keyring, golden: dict[str, Any]) -> Made:
    """One version of every kind of key, of the golden key pairs (making RSA keys takes seconds)."""
    rows = make_golden.versions(ring, golden["material"])
    assert len(rows) == len(ALGORITHMS)
    return {(spec.type, spec.size, spec.purpose): (spec, version) for spec, version in rows}


@pytest.fixture(scope="session")
def aes(ring: Keyring) -> KeyVersion:
    return ring.versions.wrap(ring.generate(AES), AES, key_id=KEY, version=1, created_at=0)
