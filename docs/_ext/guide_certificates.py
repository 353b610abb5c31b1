"""`python guide_certificates.py HOST…`: what a plant's own authority would hand out. Writes ca.pem, and NAME.pem with NAME-key.pem, where NAME is the host up to its first dot."""

import datetime
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM
VALID = datetime.timedelta(days=30)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def make(subject: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("plant")).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - VALID).not_valid_after(now + VALID)
    for extension in extensions:
        made = made.add_extension(extension, critical=False)
    return made.sign(signer, hashes.SHA256()).public_bytes(PEM)


def main() -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    own = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    Path("ca.pem").write_bytes(make("plant", authority, authority, x509.BasicConstraints(ca=True, path_length=None), usage, own))
    for host in sys.argv[1:]:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        stem = host.partition(".")[0]
        Path(f"{stem}.pem").write_bytes(make(host, key, authority, x509.SubjectAlternativeName([x509.DNSName(host)]), issuer))
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        Path(f"{stem}-key.pem").write_bytes(secret)


if __name__ == "__main__":
    main()
