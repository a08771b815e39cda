"""Makes the keys of this folder, and the assertion, with OpenSSL 3 and Python's own library. They are for tests and protect
nothing. Run it in this folder: python3 make.py

p256-sec1.pem       as `openssl ecparam -genkey` writes it: the curve's parameters, then the key (SEC1)
p256-pkcs8.pem      the same key as PKCS#8
p256-public.pem     its public half
assertion.jwt       a client assertion signed with it: what business_manager.rs of the tests asks for, word for word
p384.pem, k256.pem, ed25519.pem     keys of other kinds; RSA keys are in push-certificates
encrypted.pem, encrypted-old.pem     the first key with the password `secret`, in the new form and the old
"""

import base64
import json
import subprocess


def openssl(*arguments, data=b""):
    return subprocess.run(["openssl", *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(der):
    """The two numbers of a DER signature as 32 bytes each (RFC 7518, section 3.4)."""
    assert der[0] == 0x30 and der[1] == len(der) - 2
    numbers, at = b"", 2
    for _ in range(2):
        assert der[at] == 0x02
        number = int.from_bytes(der[at + 2 : at + 2 + der[at + 1]], "big")
        numbers += number.to_bytes(32, "big")
        at += 2 + der[at + 1]
    return numbers


openssl("ecparam", "-name", "prime256v1", "-genkey", "-out", "p256-sec1.pem")
openssl("pkcs8", "-topk8", "-nocrypt", "-in", "p256-sec1.pem", "-out", "p256-pkcs8.pem")
openssl("ec", "-in", "p256-sec1.pem", "-pubout", "-out", "p256-public.pem")
openssl("pkcs8", "-topk8", "-in", "p256-sec1.pem", "-passout", "pass:secret", "-out", "encrypted.pem")
openssl("ec", "-in", "p256-sec1.pem", "-aes256", "-passout", "pass:secret", "-out", "encrypted-old.pem")
openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "p384.pem")
openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", "k256.pem")
openssl("genpkey", "-algorithm", "ed25519", "-out", "ed25519.pem")

client = "BUSINESSAPI.00000000-0000-4000-8000-000000000001"
header = {"alg": "ES256", "kid": "00000000-0000-4000-8000-000000000002", "typ": "JWT"}
claims = {
    "iss": client,
    "sub": client,
    "aud": "https://account.apple.com/auth/oauth2/v2/token",
    "iat": 1767225540,  # A minute before 2026 began.
    "exp": 1767226800,  # Twenty minutes after it.
    "jti": "00010203-0405-4607-8809-0a0b0c0d0e0f",
}
signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
signature = raw(openssl("dgst", "-sha256", "-sign", "p256-sec1.pem", data=signed.encode()))
with open("assertion.jwt", "w", encoding="ascii") as file:
    file.write(f"{signed}.{encoded(signature)}\n")
