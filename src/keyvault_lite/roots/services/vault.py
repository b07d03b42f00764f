"""`vault:` — a transit key of Vault, OpenBao or another KeyVault Lite."""

import json
import re
from typing import Any, ClassVar, Final

from keyvault_lite.crypto.root import InvalidMasterKey, RootError, read_text
from keyvault_lite.model.encoding import encode_base64
from keyvault_lite.roots.root import RootRefused
from keyvault_lite.roots.services.web import Address, text_of
from keyvault_lite.roots.services.wrapping import WrappingRoot, bytes_of

_PATH: Final = re.compile(r"/?((?:[A-Za-z0-9._-]+/)+)keys/([A-Za-z0-9._-]+)")


class VaultRoot(WrappingRoot):
    """A key of the transit secrets engine. The token needs `update` on `MOUNT/decrypt/KEY` alone, to open."""

    kind: ClassVar = "vault"

    def __init__(self, url: str, *, token_file: str | None, ca_file: str | None = None) -> None:
        """`url` is like https://vault.example:8200/transit/keys/kvl. Raises RootError."""
        self._address = Address.parse(url, ca_file=ca_file)
        match = _PATH.fullmatch(self._address.parts.path)
        if match is None:
            raise RootError("A vault: root is like vault:https://host:8200/transit/keys/NAME?token-file=/path.")
        self._mount, self._name = match[1].rstrip("/"), match[2]
        if token_file is None:
            raise RootError("A vault: root names a file with its token: ?token-file=/path.")
        self._token_file = token_file
        super().__init__(f"{self._mount}/keys/{self._name}")

    @property
    def name(self) -> str:
        """See Root."""
        return f"vault:{self._address.parts.scheme}://{self._address.host}/{self._key}"

    def wrap(self, raw: bytes, associated: bytes) -> str:
        """See WrappingRoot."""
        body = {"plaintext": encode_base64(raw), "associated_data": encode_base64(associated)}
        return text_of(self._post("encrypt", body), "data", "ciphertext")

    def unwrap(self, wrapped: str, associated: bytes) -> bytes:
        """See WrappingRoot."""
        body = {"ciphertext": wrapped, "associated_data": encode_base64(associated)}
        return bytes_of(text_of(self._post("decrypt", body), "data", "plaintext"))

    def check(self) -> str:
        """See Root. Extends the token, too."""
        answer = self._send("/v1/auth/token/renew-self", {})
        seconds = answer.get("auth", {}).get("lease_duration") if isinstance(answer.get("auth"), dict) else None
        return f"the token is valid for {seconds} more seconds" if seconds else "the token has no end"

    def _post(self, what: str, body: dict[str, str]) -> dict[str, Any]:
        return self._send(f"/v1/{self._mount}/{what}/{self._name}", body)

    def _send(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        try:
            token = read_text(self._token_file)
        except InvalidMasterKey as error:
            raise RootRefused(error.detail.replace("master key file", "token file")) from None
        if not token or not token.isprintable():
            raise RootRefused(f"The token file {self._token_file} does not hold a token.")
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        return self._address.post(path, json.dumps(body).encode(), headers)
