"""Versions of keys: their material, wrapped for the database and unwrapped for use.

wrapping key of the keyring ─opens→ container of one version, bound to key, number, kind and public key
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Final

from keyvault_lite.crypto.agreement import Agreement, Encapsulation
from keyvault_lite.crypto.algorithms import Signer
from keyvault_lite.crypto.cipher import Cipher
from keyvault_lite.crypto.container import ContainerLayout, KeySealer, Rng, id_bytes
from keyvault_lite.crypto.material import Material
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.crypto.transit import TransitVersion
from keyvault_lite.model.encoding import pae
from keyvault_lite.model.errors import IntegrityViolation, InvalidCiphertext
from keyvault_lite.model.keys import Attributes, KeySpec, KeyVersion, Purpose, VersionStatus
from keyvault_lite.model.names import KeyId

ORIGIN: Final = "generated"
"""Where material came from, bound in its container."""
IMPORTED: Final = "imported"
"""The word of material from outside: it is in the version's attribute `origin` too."""
LOADED: Final = 4096
"""How many key versions are kept unwrapped; the least recently used goes first."""
Loaded = Agreement | Cipher | Encapsulation | Signer | TransitVersion
"""The material of one version, ready for use."""


class Versions(Secret):
    """Wraps and unwraps. What was unwrapped is kept for the next use. Safe to call from any thread."""

    __slots__ = ("_instance_id", "_loaded", "_lock", "_rng", "_wrapping_keys")

    def __init__(self, wrapping_keys: Mapping[int, bytes], instance_id: bytes, rng: Rng) -> None:
        """`wrapping_keys` by generation; the newest wraps, all unwrap."""
        self._wrapping_keys: Final = wrapping_keys
        self._instance_id: Final = instance_id
        self._rng: Final = rng
        self._loaded: Final[OrderedDict[tuple[object, ...], tuple[KeySpec, Loaded]]] = OrderedDict()
        self._lock: Final = Lock()

    def wrap(
        self,
        material: Material,
        spec: KeySpec,
        *,
        key_id: KeyId,
        version: int,
        created_at: int,
        attributes: Attributes | None = None,
    ) -> KeyVersion:
        """The material as a version to be stored: ACTIVE, under the newest wrapping key.

        Of the attributes `origin` is bound in its container: IMPORTED for material from outside.
        """
        generation = max(self._wrapping_keys)
        attributes = attributes or {}
        box, context = self._kek_box(
            spec, key_id, version, generation, public_key=material.public_key, origin=_origin(attributes)
        )
        sealed = box.seal(context, material.secret, self._rng)
        return KeyVersion(
            key_id,
            version,
            VersionStatus.ACTIVE,
            created_at,
            sealed,
            public_key=material.public_key,
            generation=generation,
            attributes=attributes,
        )

    def _kek_box(
        self, spec: KeySpec, key_id: KeyId, version: int, generation: int, *, public_key: bytes | None, origin: str
    ) -> tuple[KeySealer, bytes]:
        frame = ContainerLayout(
            "kek", instance_id=self._instance_id, id=id_bytes(key_id), version=version, purpose=spec.purpose
        )
        public = None if public_key is None else hashlib.sha256(public_key).digest()
        context = pae("kek", spec.type.value, spec.size, generation, public, origin)
        return KeySealer(frame, self._wrapping_keys[generation]), hashlib.sha256(context).digest()

    def load(self, spec: KeySpec, version: KeyVersion) -> Loaded:
        """The version's material, ready for use. Raises IntegrityViolation if its container does not open."""
        name = (version.key_id, version.version, version.generation, version.public_key, version.encrypted_key)
        with self._lock:
            known = self._loaded.get(name)
            if known is not None and (known[0] is spec or known[0] == spec):
                self._loaded.move_to_end(name)
                return known[1]
        loaded = self._unwrap(spec, version)
        with self._lock:
            self._loaded[name] = (spec, loaded)
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
        return loaded

    def _unwrap(self, spec: KeySpec, version: KeyVersion) -> Loaded:
        try:
            origin = _origin(version.attributes)
            box, context = self._kek_box(
                spec, version.key_id, version.version, version.generation, public_key=version.public_key, origin=origin
            )
            secret = box.open(context, version.encrypted_key)
        except (InvalidCiphertext, KeyError):
            raise IntegrityViolation("the material of this key version does not open") from None
        if spec.purpose is Purpose.TRANSIT:
            place = id_bytes(version.key_id)
            return TransitVersion(
                spec,
                secret,
                version.public_key,
                instance_id=self._instance_id,
                key_id=place,
                version=version.version,
                rng=self._rng,
            )
        if spec.purpose in {Purpose.SIGN, Purpose.MAC}:
            return Signer(spec, secret)
        if spec.purpose is Purpose.AGREE:
            return Agreement(spec, secret)
        if spec.purpose is Purpose.ENCAPSULATE:
            return Encapsulation(spec, secret, version.public_key or b"")
        return Cipher(
            spec, secret, instance_id=self._instance_id, key_id=id_bytes(version.key_id), version=version.version
        )

    def forget(self, key_id: KeyId) -> None:
        """Drop all unwrapped material of a key, after its destruction."""
        with self._lock:
            for name in [name for name in self._loaded if name[0] == key_id]:
                del self._loaded[name]


def _origin(attributes: Attributes) -> str:
    return IMPORTED if attributes.get("origin") == IMPORTED else ORIGIN
