"""The keyring: everything secret that one installation has, and every operation that needs it.

    master key ─opens→ slot = bundle: root ─derives→ keys of row MACs, the log's head, tokens, digests, stored replies
                                      wrapping keys ─open→ material of key versions ─opens→ DEKs ─open→ messages
                                      Ed25519 key that signs checkpoints of the log

The instance id enters every derivation: nothing of one installation verifies or opens in another. Versions that are
handed in are verified records of the ledger; their state is the engine's business. Safe to call from any thread.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyvault_lite.crypto.access_keys import AccessKeys
from keyvault_lite.crypto.agreement import Agreement, Encapsulation
from keyvault_lite.crypto.algorithms import Signer
from keyvault_lite.crypto.cipher import Cipher
from keyvault_lite.crypto.container import ContainerLayout, KeySealer, Rng, expand, id_bytes, parse, prk, refusal
from keyvault_lite.crypto.hmac_key import HmacKey
from keyvault_lite.crypto.importing import imported, imported_public, open_oaep, open_wrapped
from keyvault_lite.crypto.keyring_secrets import KeyringSecrets
from keyvault_lite.crypto.material import Material, generate, load_rsa
from keyvault_lite.crypto.root import MasterKey, SlotKey, WrongMasterKey
from keyvault_lite.crypto.secret import Secret
from keyvault_lite.crypto.transit import TransitVersion, generate_transit, with_mac_key
from keyvault_lite.crypto.versions import Versions
from keyvault_lite.model.encoding import (
    NO_CONTEXT_DIGEST,
    Context,
    Value,
    context_digest,
    context_values,
    encode,
    encode_items,
    list_head,
    pae,
)
from keyvault_lite.model.errors import IntegrityViolation, InvalidCiphertext, InvalidRequest
from keyvault_lite.model.keyring import Slot
from keyvault_lite.model.keys import AnyAlgorithm, KeySpec, KeyVersion, Purpose
from keyvault_lite.model.names import KeyId, TokenId, is_id

KDF_NONE: Final = "none"
_NO_DIGEST: Final = bytes(32)


class Keyring(Secret):
    """The open keyring of one installation. Made by `create` or `open`."""

    __slots__ = (
        "_bundle",
        "_head_key",
        "_head_label",
        "_load",
        "_log",
        "_notes_key",
        "_redact_key",
        "_replies_key",
        "_rng",
        "_row_key",
        "_row_keys",
        "_token_key",
        "access_keys",
        "generation",
        "instance_id",
        "log_public_key",
        "versions",
    )

    def __init__(self, bundle: KeyringSecrets, generation: int, rng: Rng) -> None:
        self._bundle: Final = bundle
        self._rng: Final = rng
        self.instance_id: Final = bundle.instance_id
        self.generation: Final = generation
        self._row_key: Final = self._mac_key("row")
        self._head_key: Final = self._mac_key("head")
        self._token_key: Final = self._mac_key("token")
        self._redact_key: Final = self._mac_key("redact")
        self._replies_key: Final = self._derive("idem")
        self._notes_key: Final = self._derive("note")
        self.access_keys: Final = AccessKeys(self._derive("access-key"), bundle.instance_id, rng)
        self._log: Final = Ed25519PrivateKey.from_private_bytes(bundle.log_seed)
        self.log_public_key: Final = self._log.public_key().public_bytes_raw()
        self._row_keys: Final[dict[tuple[str, int, int], HmacKey]] = {}
        """By table, schema and columns of the primary key: the key after what all those rows begin with."""
        self.versions: Final = Versions(bundle.wrap, bundle.instance_id, rng)
        self._load: Final = self.versions.load

    def _derive(self, use: str) -> bytes:
        return expand(prk(self._bundle.root), pae("kvl/v1/derive", use, self.instance_id))[:32]

    @property
    def counter_auth(self) -> bytes:
        """The authorisation value of this installation's counter in a TPM, 32 bytes."""
        return self._derive("tpm-counter")

    def _mac_key(self, use: str) -> HmacKey:
        return HmacKey(self._derive(use), hashlib.sha256)

    # Slots

    @classmethod
    def create(cls, rng: Rng = os.urandom) -> Self:
        """A new installation: fresh secrets, generation 1. Nothing is stored; `seal` makes its first slot."""
        return cls(KeyringSecrets.create(rng), 1, rng)

    @classmethod
    def open(cls, slots: Sequence[Slot], master: MasterKey, rng: Rng = os.urandom) -> Self:
        """The keyring that `master` opens; of several slots the one of the highest generation.

        Raises WrongMasterKey if no slot opens (the commitment decides, so a slot opens under one master key only), and
        IntegrityViolation if a slot opens and is not what it says it is. Slots come unverified from the database.
        """
        for slot in sorted(slots, key=lambda slot: slot.generation, reverse=True):
            keyring = cls.open_slot(slot, master, rng) if slot.kdf == KDF_NONE else None
            if keyring is not None:
                return keyring
        raise WrongMasterKey(
            "The master key opens no slot of this keyring: it belongs to another vault, or was replaced."
        )

    @classmethod
    def open_slot(cls, slot: Slot, key: SlotKey, rng: Rng = os.urandom) -> Self | None:
        """The keyring in one slot, None if the slot is not for this key. Raises IntegrityViolation, as `open`."""
        raw = _open_slot(slot, key)
        if raw is None:
            return None
        bundle = KeyringSecrets.read(raw)
        if bundle.instance_id != slot.instance_id:
            raise IntegrityViolation("the keyring belongs to another installation than its slot says")
        return cls(bundle, slot.generation, rng)

    def seal(self, key: SlotKey, *, slot_id: str, created_at: int, kdf: str = KDF_NONE) -> Slot:
        """A slot that `key` opens. `slot_id` is a UUID, `created_at` in microseconds; `kdf` says how `key` is had."""
        box, context = _slot_box(slot_id, self.generation, self.instance_id, kdf, key)
        sealed = box.seal(context, self._bundle.write(), self._rng)
        return Slot(slot_id, self.generation, self.instance_id, kdf, sealed, created_at)

    def opens(self, slot: Slot, key: SlotKey) -> bool:
        """Whether `key` opens the slot, and this keyring is in it."""
        return hmac.compare_digest(_open_slot(slot, key) or b"", self._bundle.write())

    # Key material

    def generate(self, spec: KeySpec) -> Material:
        """Fresh material. RSA takes up to seconds: call it off the event loop, and `wrap` the result."""
        make = generate_transit if spec.purpose is Purpose.TRANSIT else generate
        return make(spec, self._rng)

    # Messages and data keys. Contexts are the caller's; no context and an empty one are the same.

    def version_in(self, key_id: KeyId, encrypted_dek: bytes) -> int:
        """The version that an encrypted DEK or data key names. Raises InvalidCiphertext, also for another key's."""
        header = parse(encrypted_dek)
        if header.id != id_bytes(key_id) or header.version == 0:
            raise refusal()
        return header.version

    def encrypt(
        self, spec: KeySpec, version: KeyVersion, plaintext: bytes, context: Context | None
    ) -> tuple[bytes, bytes]:
        """Ciphertext and encrypted_dek."""
        return self._cipher(spec, version).encrypt(plaintext, context_digest(context), self._rng)

    def decrypt(
        self, spec: KeySpec, version: KeyVersion, ciphertext: bytes, encrypted_dek: bytes, context: Context | None
    ) -> bytes:
        """The plaintext. Raises InvalidCiphertext, one and the same whatever the cause."""
        return self._cipher(spec, version).decrypt(ciphertext, encrypted_dek, context_digest(context))

    def rewrap(
        self, spec: KeySpec, old: KeyVersion, new: KeyVersion, encrypted_dek: bytes, context: Context | None
    ) -> bytes:
        """The encrypted_dek of version `old` under version `new` of the same key. Raises InvalidCiphertext."""
        digest = context_digest(context)
        dek = self._cipher(spec, old).open_dek(encrypted_dek, digest)
        return self._cipher(spec, new).seal_dek(dek, digest, self._rng)

    def data_key(self, spec: KeySpec, version: KeyVersion, bits: int, context: Context | None) -> tuple[bytes, bytes]:
        """A fresh data key of 128, 256 or 512 bits, plain and wrapped."""
        return self._cipher(spec, version).data_key(bits // 8, context_digest(context), self._rng)

    def open_data_key(self, spec: KeySpec, version: KeyVersion, encrypted_key: bytes, context: Context | None) -> bytes:
        """The data key. Raises InvalidCiphertext, for a message's encrypted_dek too."""
        return self._cipher(spec, version).open_data_key(encrypted_key, context_digest(context))

    def _cipher(self, spec: KeySpec, version: KeyVersion) -> Cipher:
        loaded = self._load(spec, version)
        if not isinstance(loaded, Cipher):
            raise InvalidRequest(f"a key of purpose {spec.purpose} does not encrypt or decrypt")
        return loaded

    # Bare RSA-OAEP and shared secrets, for dialects

    def seal_bare(self, spec: KeySpec, version: KeyVersion, plaintext: bytes, digest: str) -> bytes:
        """RSAES-OAEP alone, with SHA1 or SHA256. Raises InvalidRequest for more than the modulus holds."""
        return self._cipher(spec, version).seal_bare(plaintext, digest)

    def open_bare(self, spec: KeySpec, version: KeyVersion, ciphertext: bytes, digest: str) -> bytes:
        """What was encrypted to the public key. Raises InvalidCiphertext."""
        return self._cipher(spec, version).open_bare(ciphertext, digest)

    def derive_secret(self, spec: KeySpec, version: KeyVersion, peer: bytes) -> bytes:
        """The raw x coordinate shared with a public key in DER. Raises InvalidRequest for a key that does not fit."""
        loaded = self._load(spec, version)
        if not isinstance(loaded, Agreement):
            raise InvalidRequest(f"a key of purpose {spec.purpose} does not agree on secrets")
        return loaded.derive(peer)

    def data_key_pair(
        self, spec: KeySpec, version: KeyVersion, pair: KeySpec, context: Context | None
    ) -> tuple[bytes, bytes, tuple[bytes, bytes]]:
        """A fresh pair for the caller's own use: PKCS #8, SubjectPublicKeyInfo, and the private key as a message."""
        made = self.generate(pair)
        return made.secret, made.public_key or b"", self.encrypt(spec, version, made.secret, context)

    def encapsulate(self, spec: KeySpec, version: KeyVersion) -> tuple[bytes, bytes]:
        """A fresh secret of 32 bytes, and its ciphertext."""
        return self._encapsulation(spec, version).encapsulate()

    def decapsulate(self, spec: KeySpec, version: KeyVersion, ciphertext: bytes) -> bytes:
        """The secret; of an altered ciphertext another one. Raises InvalidCiphertext for one of another length."""
        return self._encapsulation(spec, version).decapsulate(ciphertext)

    def _encapsulation(self, spec: KeySpec, version: KeyVersion) -> Encapsulation:
        loaded = self._load(spec, version)
        if not isinstance(loaded, Encapsulation):
            raise InvalidRequest(f"a key of purpose {spec.purpose} does not encapsulate")
        return loaded

    # Signatures and MACs

    def sign(
        self, spec: KeySpec, version: KeyVersion, message: bytes, algorithm: AnyAlgorithm, *, prehashed: bool
    ) -> bytes:
        """Signature or MAC. Raises InvalidRequest if the algorithm or the digest's length does not fit the key."""
        return self._signer(spec, version).sign(message, algorithm, prehashed=prehashed)

    def verify(
        self,
        spec: KeySpec,
        version: KeyVersion,
        message: bytes,
        signature: bytes,
        algorithm: AnyAlgorithm,
        *,
        prehashed: bool,
    ) -> bool:
        """Whether the signature or MAC holds. Raises as `sign` does."""
        return self._signer(spec, version).verify(message, signature, algorithm, prehashed=prehashed)

    def _signer(self, spec: KeySpec, version: KeyVersion) -> Signer:
        loaded = self._load(spec, version)
        if not isinstance(loaded, Signer):
            raise InvalidRequest(f"a key of purpose {spec.purpose} does not sign or verify")
        return loaded

    # Keys of purpose TRANSIT

    def transit(self, spec: KeySpec, version: KeyVersion) -> TransitVersion:
        """A version of a TRANSIT key, ready for use. Raises IntegrityViolation if its container does not open."""
        loaded = self._load(spec, version)
        if not isinstance(loaded, TransitVersion):
            raise InvalidRequest(f"a key of purpose {spec.purpose} is not one of the Vault dialect")
        return loaded

    # Evidence: MACs of rows and of the log's head, keyed digests, checkpoint signatures

    def row_mac(
        self, table: str, key: tuple[Value, ...], row_seq: int, values: tuple[Value, ...], *, schema: int = 1
    ) -> bytes:
        """HMAC-SHA256 over PAE("row", instance, table, schema, primary key, row_seq, columns); 32 bytes.

        `row_seq` is the entry that last wrote the row; `schema` changes when the meaning of the table's columns does.
        """
        width = len(key)
        row_key = self._row_keys.get((table, schema, width))
        if row_key is None:
            place = list_head(7) + encode_items(("row", self.instance_id, table, schema)) + list_head(width)
            row_key = self._row_keys[table, schema, width] = self._row_key.begun(place)
        # A row begins with its key, which is not encoded twice: the same object has the same encoding.
        if width == 1 and values and key[0] is values[0]:
            first = encode(key[0])
            columns = first + encode_items(values[1:])
        else:
            first, columns = encode_items(key), encode_items(values)
        return row_key.mac(first + encode(row_seq) + list_head(len(values)) + columns)

    def head_mac(self, *values: Value) -> bytes:
        """HMAC-SHA256 over PAE("head", instance, values…); 32 bytes."""
        return self._head_key.mac(pae("head", self.instance_id, *values))

    def redact_context(self, key_id: KeyId, context: Context | None) -> bytes:
        """Keyed digest of a context, 32 bytes. Per key, so that only users of the key could test guesses."""
        return self._redact_key.mac(pae("context", key_id, *context_values(context)))

    def redact_text(self, text: str) -> str:
        """Keyed digest of text that must not be written down: `~` and 32 hex digits, which is no name and no id."""
        raw = text.encode("utf-8", "surrogatepass")
        return "~" + self._redact_key.mac(pae("text", raw))[:16].hex()

    def sign_log(self, message: bytes) -> bytes:
        """Ed25519 signature with the log's key. MUST NOT be given a checkpoint of anything that may be rolled back."""
        return self._log.sign(message)

    # Credentials

    def token_digest(self, token_id: TokenId, secret: str) -> bytes:
        """What is stored of a token: HMAC-SHA256 over PAE("token", instance, id, secret); 32 bytes."""
        return self._token_key.mac(pae("token", self.instance_id, token_id, secret))

    def token_matches(self, token_id: TokenId, secret: str, stored: bytes | None) -> bool:
        """Whether the secret is the one whose digest is stored. None, of an unknown id, costs the same and is False."""
        digest = self.token_digest(token_id, secret)
        return hmac.compare_digest(digest, _NO_DIGEST if stored is None else stored) and stored is not None

    # Notes: what a caller carries for us until it comes back, sealed. Notes of one kind never open as another's.

    def seal_note(self, kind: str, payload: bytes) -> bytes:
        """Seal a note."""
        return self._note_box(kind).seal(NO_CONTEXT_DIGEST, payload, self._rng)

    def open_note(self, kind: str, sealed: bytes) -> bytes:
        """The note. Raises InvalidCiphertext for what this vault did not seal as such."""
        return self._note_box(kind).open(NO_CONTEXT_DIGEST, sealed)

    def _note_box(self, kind: str) -> KeySealer:
        frame = ContainerLayout("note", instance_id=self.instance_id, id=bytes(16), version=0, purpose=kind)
        return KeySealer(frame, self._notes_key)

    # Material from outside

    def import_pair(self, kind: KeySpec) -> tuple[bytes, bytes]:
        """A fresh RSA pair to wrap material with: PKCS #8, for a note, and SubjectPublicKeyInfo."""
        made = self.generate(kind)
        return made.secret, made.public_key or b""

    def open_import(self, private: bytes, wrapped: bytes, *, digest: str, key_wrap: bool) -> bytes:
        """Unwrap material with the private half of `import_pair`. Raises InvalidCiphertext."""
        return (open_wrapped if key_wrap else open_oaep)(load_rsa(private), wrapped, digest)

    def read_import(self, spec: KeySpec, raw: bytes) -> Material:
        """The unwrapped bytes as material of that kind, validated. Raises InvalidRequest."""
        material = imported(spec, raw)
        return with_mac_key(spec, material, self._rng) if spec.purpose is Purpose.TRANSIT else material

    def read_public(self, spec: KeySpec, pem: str) -> Material:
        """A public key as material of a TRANSIT version that has no private key. Raises InvalidRequest."""
        return with_mac_key(spec, imported_public(spec, pem), self._rng)

    def material_digest(self, key_id: KeyId, raw: bytes) -> bytes:
        """Keyed digest that tells whether two imports under a key are the same material; 32 bytes."""
        return self._redact_key.mac(pae("material", key_id, raw))

    # Stored replies of idempotent requests

    def seal_reply(self, row_id: str, binding: tuple[Value, ...], body: bytes) -> bytes:
        """Seal a reply for its row (a UUID), bound to `binding`: service, key and body hash."""
        box, context = self._reply_box(row_id, binding)
        return box.seal(context, body, self._rng)

    def open_reply(self, row_id: str, binding: tuple[Value, ...], sealed: bytes) -> bytes:
        """The reply. Raises IntegrityViolation if it is not the one sealed for this row and binding."""
        box, context = self._reply_box(row_id, binding)
        try:
            return box.open(context, sealed)
        except InvalidCiphertext:
            raise IntegrityViolation("a stored reply does not open") from None

    def _reply_box(self, row_id: str, binding: tuple[Value, ...]) -> tuple[KeySealer, bytes]:
        frame = ContainerLayout("idem", instance_id=self.instance_id, id=id_bytes(row_id), version=0, purpose="REPLY")
        return KeySealer(frame, self._replies_key), hashlib.sha256(pae("idem", *binding)).digest()


def _slot_box(slot_id: str, generation: int, instance_id: bytes, kdf: str, key: SlotKey) -> tuple[KeySealer, bytes]:
    frame = ContainerLayout(
        "slot", instance_id=instance_id, id=id_bytes(slot_id), version=generation, purpose="KEYRING"
    )
    return key.box(frame), hashlib.sha256(pae("slot", instance_id, kdf)).digest()


def _open_slot(slot: Slot, key: SlotKey) -> bytes | None:
    """The bundle's bytes, None if the slot is not for this key. A slot is unverified input of any shape."""
    if not is_id(slot.id) or not 0 < slot.generation < 2**32:
        return None
    box, context = _slot_box(slot.id, slot.generation, slot.instance_id, slot.kdf, key)
    try:
        return box.open(context, slot.sealed)
    except InvalidCiphertext:
        return None
