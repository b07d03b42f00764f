"""Certificates for keys of purpose TRANSIT: requests that the key signs, and chains that others issued for it.

A request takes subject and extensions from a template, itself a request; what the template says of a key is not looked
at, and it proves nothing. A chain is kept only if its first certificate is for the very public key and every next one
has signed the one before.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyvault_lite.model.errors import InvalidRequest

MAX_LENGTH: Final = 10
_OF_CURVE: Final[Mapping[int, hashes.HashAlgorithm]] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
"""The digest of a curve's strength, by the bits of the curve (RFC 5480, section 4)."""
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def signing_request(private: Any, template: str | None) -> str:  # noqa: ANN401
    """A certificate signing request in PEM (PKCS #10, RFC 2986). Raises InvalidRequest for a malformed template."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if template:
        try:
            found = x509.load_pem_x509_csr(template.encode())
            builder = x509.CertificateSigningRequestBuilder().subject_name(found.subject)
            for extension in found.extensions:
                builder = builder.add_extension(extension.value, extension.critical)
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
            raise InvalidRequest("the template is not a certificate signing request in PEM") from None
    return builder.sign(private, _digest(private)).public_bytes(Encoding.PEM).decode()


def _digest(private: Any) -> Any:  # noqa: ANN401
    """The digest that goes with a private key; None where the scheme has its own."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return _OF_CURVE[private.curve.key_size]
    return hashes.SHA256() if isinstance(private, rsa.RSAPrivateKey) else None


def check_chain(chain: str, public_key: bytes) -> str:
    """The chain in normal form, leaf first. Raises InvalidRequest unless it is for this public key (DER) and holds."""
    blocks = _CERTIFICATE.findall(chain)
    if not 0 < len(blocks) <= MAX_LENGTH:
        raise InvalidRequest("provided certificate chain did not contain any valid PEM encoded certificate")
    try:
        certificates = [x509.load_pem_x509_certificate(block.encode()) for block in blocks]
        leaf = certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf != public_key:
            raise InvalidRequest("the first certificate is for another public key")
        for one, issuer in pairwise(certificates):
            one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidRequest("the certificate chain does not parse") from None
    except InvalidSignature:
        raise InvalidRequest("a certificate of the chain is not signed by the next one") from None
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)
