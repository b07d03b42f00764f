"""`gcpkms:` — a symmetric key of Google Cloud KMS."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from keyvault_lite.crypto.jwt_signing import sign_rs256
from keyvault_lite.crypto.root import RootError
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.roots.root import RootRefused, RootUnavailable
from keyvault_lite.roots.services.web import Address, metadata_token, text_of
from keyvault_lite.roots.services.wrapping import WrappingRoot, bytes_of

ENDPOINT: Final = "https://cloudkms.googleapis.com"
_NAME: Final = re.compile(r"projects/[\w:.-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+", re.ASCII)
_LIFETIME: Final = 300
_MAX_FILE: Final = 64 * 1024
_CASTAGNOLI: Final = 0x82F63B78


class GcpKmsRoot(WrappingRoot):
    """A key by its resource name. The caller needs cloudkms.cryptoKeyVersions.useToDecrypt (and …ToEncrypt)."""

    kind: ClassVar = "gcpkms"

    def __init__(self, key: str, *, endpoint: str | None = None, ca_file: str | None = None) -> None:
        """Raises RootError."""
        if _NAME.fullmatch(key) is None:
            raise RootError("A gcpkms: root is like gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K.")
        self._address = Address.parse(endpoint or ENDPOINT, ca_file=ca_file)
        super().__init__(key)

    @property
    def name(self) -> str:
        """See Root."""
        return f"gcpkms:{self._key}"

    def wrap(self, raw: bytes, associated: bytes) -> str:
        """See WrappingRoot."""
        answer = self._ask("encrypt", plaintext=raw, additionalAuthenticatedData=associated)
        if not text_of(answer, "name").startswith(f"{self._key}/cryptoKeyVersions/"):
            raise RootRefused("Cloud KMS has used another key than the one that the root names.")
        ciphertext = bytes_of(text_of(answer, "ciphertext"))
        if not answer.get("verifiedPlaintextCrc32c") or text_of(answer, "ciphertextCrc32c") != str(crc32c(ciphertext)):
            raise RootUnavailable("The checksum of what Cloud KMS wrapped does not fit.")
        return encode_base64(ciphertext)

    def unwrap(self, wrapped: str, associated: bytes) -> bytes:
        """See WrappingRoot."""
        answer = self._ask("decrypt", ciphertext=bytes_of(wrapped), additionalAuthenticatedData=associated)
        raw = bytes_of(text_of(answer, "plaintext"))
        if text_of(answer, "plaintextCrc32c") != str(crc32c(raw)):
            raise RootUnavailable("The checksum of what Cloud KMS unwrapped does not fit.")
        return raw

    def _ask(self, operation: str, **fields: bytes) -> dict[str, Any]:
        body = {name: encode_base64(value) for name, value in fields.items()}
        body |= {f"{name}Crc32c": str(crc32c(value)) for name, value in fields.items()}
        headers = {"Authorization": f"Bearer {_bearer()}", "Content-Type": "application/json"}
        return self._address.post(f"/v1/{self._key}:{operation}", json.dumps(body).encode(), headers)


def _bearer() -> str:
    """Application default credentials: a service account's file, else the metadata server of the machine."""
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not path:
        return metadata_token()
    try:
        with Path(path).open("rb") as file:
            found = json.loads(file.read(_MAX_FILE))
        email, key_id, pem = (found[name] for name in ("client_email", "private_key_id", "private_key"))
        now = int(time.time())
        claims = {"iss": email, "sub": email, "aud": f"{ENDPOINT}/", "iat": now, "exp": now + _LIFETIME}
        return sign_rs256(pem.encode(), key_id, claims)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RootRefused(
            f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which is not the key file of a service account."
        ) from None


def crc32c(raw: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4), bit by bit: what is summed here is short."""
    value = 0xFFFFFFFF
    for byte in raw:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
    return value ^ 0xFFFFFFFF
