#!/bin/sh
# Makes the server token files of this folder with OpenSSL 3 (Debian's `openssl`). The keys and tokens are for tests and
# protect nothing. Run it in this folder: sh make.sh
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -f -- *.p7m *.pem *.b64 *.der *.json

# Ours, and somebody else's. OpenSSL gives the certificates a subject key identifier.
certificate() { # NAME FOLDER KEY-OPTIONS...
    name=$1 folder=$2
    shift 2
    openssl req -x509 -nodes -subj "/CN=$name" -days 3650 -keyout "$folder/$name-key.pem" -out "$folder/$name.pem" "$@"
}
certificate ours . -newkey rsa:2048
certificate other . -newkey rsa:2048
certificate elliptic "$work" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1
openssl rsa -in ours-key.pem -traditional -out ours-key-pkcs1.pem
# A second certificate of our key, as after "the old one has ended".
openssl req -x509 -key ours-key.pem -subj "/CN=renewed" -days 3650 -out renewed.pem

# The text as Apple's sample has it: headers, then JSON whose lines break in the middle of words.
plain() { # EXPIRY
    printf '{"consumer_key":"CK_%s","consumer_secret":"CS_%s","access_token":"AT_%s","access_secret":"AS_%s","access_token_expiry":"%s"}' \
        48dd68d198350f51258e885ce9a5c37ab7f98543c4a697323d75682a6c10a325 \
        34c7b2083bdfae92c5b2e81fd6a3c30f1c7d3ad5bb2ea0d9bd4b8ad4f28c9f10 \
        0926e8d9a5c37ab7f98543c4a697323d75682a6c10a32501cb247e3db08105db \
        c6f2a05cf2ea0d9bd4b8ad4f28c9f10834c7b2083bdfae92c5b2e81fd6a3c30f \
        "$1"
}
headers() { printf 'Content-Type: text/plain;charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'; }
wrapped() { fold -w 76 | sed 's/$/\r/'; }
{
    headers
    plain 2027-01-01T00:00:00Z | wrapped
} >"$work/text"
{
    headers
    printf -- '-----BEGIN MESSAGE-----\r\n'
    plain 2027-01-01T00:00:00Z | wrapped
    printf -- '\r\n-----END MESSAGE-----\r\n'
} >"$work/marked"
{
    headers
    plain 2025-01-01T00:00:00Z | wrapped
} >"$work/expired"
{
    headers
    printf 'Hello, this is not a token.\r\n'
} >"$work/letter"
head -c 400 /dev/zero | tr '\0' '\1' >"$work/noise"
plain 2027-01-01T00:00:00Z >token.json

# encrypt TEXT OUT RECIPIENT OPTIONS...
encrypt() {
    text=$1 out=$2 recipient=$3
    shift 3
    openssl cms -encrypt -binary -in "$work/$text" -out "$out" -recip "$recipient" "$@"
}

# As Apple makes them: headers, base64, lengths left open (-stream), AES with 128 bits.
encrypt text apple.p7m ours.pem -aes128 -stream
encrypt marked marked.p7m ours.pem -aes128 -stream
encrypt expired expired.p7m ours.pem -aes128 -stream
# Otherwise wrapped.
encrypt text ber.der ours.pem -aes128 -stream -outform DER
encrypt text definite.der ours.pem -aes128 -outform DER
encrypt text armoured.pem ours.pem -aes128 -stream -outform PEM
openssl base64 -in ber.der -out bare.b64
# Otherwise encrypted.
encrypt text aes192.p7m ours.pem -aes192 -stream
encrypt text aes256.p7m ours.pem -aes256 -stream
encrypt text des3.p7m ours.pem -des3 -stream
encrypt text key-identifier.p7m ours.pem -aes128 -stream -keyid
encrypt text two.p7m ours.pem -aes128 -stream other.pem
encrypt text renewed.p7m renewed.pem -aes128 -stream
# What does not open.
encrypt text other.p7m other.pem -aes128 -stream
encrypt letter letter.p7m ours.pem -aes128 -stream
encrypt noise noise.p7m ours.pem -aes128 -stream
encrypt text oaep.p7m ours.pem -keyopt rsa_padding_mode:oaep -aes128 -stream
encrypt text camellia.p7m ours.pem -camellia128 -stream
encrypt text elliptic.p7m "$work/elliptic.pem" -aes128 -stream
encrypt text gcm.p7m ours.pem -aes-128-gcm -stream
openssl cms -sign -binary -nodetach -in "$work/text" -signer ours.pem -inkey ours-key.pem -stream -out signed.p7m
openssl x509 -in ours.pem -outform DER -out certificate.der
