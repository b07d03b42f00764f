"""The tables of keys: complete, consistent, and what a wrong combination is told."""

import pytest
from msgspec import structs

from keyvault_lite.model.errors import InvalidRequest
from keyvault_lite.model.keys import (
    ALGORITHMS,
    DIGEST_SIZES,
    MAY_DESTROY,
    MAY_PROCESS,
    MAY_PROTECT,
    MAY_PUBLISH,
    PURPOSES,
    SIZES,
    SYMMETRIC,
    WORDS,
    Algorithm,
    Key,
    KeyName,
    KeySpec,
    KeyStatus,
    KeyType,
    KeyVersion,
    Purpose,
    VersionStatus,
)
from keyvault_lite.model.names import KeyId

ID = KeyId("0f8fad5b-d9cb-469f-a165-70867728950e")


def test_every_type_size_and_purpose_has_algorithms() -> None:
    everything = {
        (kind, size, purpose) for kind in KeyType for size in SIZES.get(kind, ()) for purpose in PURPOSES[kind]
    }
    assert ALGORITHMS.keys() == everything
    assert all(KeySpec(*row).algorithms == algorithms for row, algorithms in ALGORITHMS.items())


def test_every_algorithm_is_some_keys() -> None:
    assert {a for algorithms in ALGORITHMS.values() for a in algorithms} == set(Algorithm)


def test_defaults_are_the_documented_ones() -> None:
    assert [sizes[0] for sizes in SIZES.values()] == [256, 3072, 256, None, 256, 65]
    assert KeySpec(KeyType.RSA, 3072, Purpose.SIGN).algorithms[0] is Algorithm.RSA_PSS_SHA256


@pytest.mark.parametrize(
    ("kind", "size", "purpose", "says"),
    [
        (KeyType.AES, 256, Purpose.SIGN, "type AES has purpose ENCRYPT, not SIGN"),
        (KeyType.RSA, 3072, Purpose.MAC, "type RSA has purpose ENCRYPT or SIGN, not MAC"),
        (KeyType.EC, 256, Purpose.ENCRYPT, "type EC has purpose SIGN, not ENCRYPT"),
        (KeyType.RSA, 2048, Purpose.SIGN, "type RSA has size 3072, 4096, not the one given"),
        (KeyType.AES, 192, Purpose.ENCRYPT, "type AES has size 128, 256, not the one given"),
        (KeyType.EC, None, Purpose.SIGN, "type EC has size 256, 384, 521"),
        (KeyType.ED25519, 255, Purpose.SIGN, "type ED25519 has size none, not the one given"),
    ],
)
def test_a_wrong_combination_is_told_what_fits(kind: KeyType, size: int | None, purpose: Purpose, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        KeySpec(kind, size, purpose).check_native()
    assert caught.value.detail == f"a key of {says}"


def test_only_pairs_are_asymmetric() -> None:
    asymmetric = {row[0] for row in (*ALGORITHMS, *WORDS) if KeySpec(*row).asymmetric}
    assert asymmetric == set(KeyType) - SYMMETRIC


def test_digests_are_given_to_rsa_and_ecdsa_only() -> None:
    assert {algorithm.split("_")[0] for algorithm in DIGEST_SIZES} == {"RSA", "ECDSA"}
    assert DIGEST_SIZES[Algorithm.RSA_PSS_SHA384] == 48
    assert Algorithm.RSA_OAEP_SHA256 not in DIGEST_SIZES


def test_states_only_ever_lose_powers() -> None:
    assert MAY_PROTECT < MAY_PROCESS < MAY_PUBLISH < set(VersionStatus)
    assert VersionStatus.DESTROYED not in MAY_PUBLISH
    assert MAY_DESTROY.isdisjoint({KeyStatus.PENDING_DESTRUCTION, KeyStatus.DESTROYED})


def key(*states: VersionStatus) -> Key:
    versions = tuple(KeyVersion(ID, n, state, 0, b"sealed") for n, state in enumerate(states, 1))
    spec = KeySpec(KeyType.AES, 256, Purpose.ENCRYPT)
    return Key(ID, None, spec, KeyStatus.ACTIVE, 0, versions=versions)


def test_the_active_version_is_the_newest_or_none() -> None:
    two = key(VersionStatus.DEPRECATED, VersionStatus.ACTIVE)
    assert two.active is two.versions[1]
    assert key(VersionStatus.REVOKED).active is None


def test_versions_are_found_by_number() -> None:
    two = key(VersionStatus.DEPRECATED, VersionStatus.ACTIVE)
    assert [two.version(n) for n in (-1, 0, 1, 2, 3)] == [None, None, *two.versions, None]


def test_dialects_names_are_written_with_their_namespace() -> None:
    name = KeyName("vault:transit/", "Foo", 0, 0)
    assert structs.replace(key(VersionStatus.ACTIVE), names=(name,)).aliases == ("vault:transit/Foo",)
    assert key(VersionStatus.ACTIVE).aliases == ()


def test_wrapped_material_is_not_shown() -> None:
    assert "sealed" not in repr(key(VersionStatus.ACTIVE))
