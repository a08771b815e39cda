#!/bin/sh
# Makes the certificates and keys of this folder with OpenSSL 3 (Debian's `openssl`). They are for tests and protect nothing.
# Run it in this folder: sh make.sh
set -eu

topic=com.apple.mgmt.External.51135151-5115-4115-8115-511351135113
subject="/UID=$topic/CN=APSP:51135151-5115-4115-8115-511351135113/C=US"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -f -- *.pem *.p12 *.der

cat >"$work/ca.conf" <<CONF
[ca]
default_ca = any
[any]
new_certs_dir = $work
database = $work/index
rand_serial = yes
default_md = sha256
policy = any_policy
unique_subject = no
copy_extensions = none
[any_policy]
UID = optional
CN = optional
C = optional
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[push]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
CONF
: >"$work/index"

# issue KEY SUBJECT ISSUER-CERTIFICATE ISSUER-KEY SECTION OUT; all of them are valid for the year 2026.
issue() {
    openssl req -new -key "$1" -subj "$2" -out "$work/request"
    if [ "$3" = self ]; then
        set -- "$1" "$2" "" "" "$5" "$6"
        openssl ca -batch -notext -config "$work/ca.conf" -selfsign -keyfile "$1" -extensions "$5" \
            -startdate 20260101000000Z -enddate 20270101000000Z -in "$work/request" -out "$6"
    else
        openssl ca -batch -notext -config "$work/ca.conf" -cert "$3" -keyfile "$4" -extensions "$5" \
            -startdate 20260101000000Z -enddate 20270101000000Z -in "$work/request" -out "$6"
    fi
}

ec() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# The authorities.
ec "$work/root.key"
issue "$work/root.key" "/CN=Test Root CA" self "" root "$work/root.pem"
ec "$work/inter.key"
issue "$work/inter.key" "/CN=Test Application Integration CA" "$work/root.pem" "$work/root.key" root intermediate.pem

# RSA, as push certificates are: the key as PKCS#8 and PKCS#1, and encrypted in both ways.
openssl genrsa -out rsa-key-pkcs8.pem 2048
issue rsa-key-pkcs8.pem "$subject" intermediate.pem "$work/inter.key" push rsa.pem
openssl rsa -in rsa-key-pkcs8.pem -traditional -out rsa-key-pkcs1.pem
openssl pkcs8 -topk8 -in rsa-key-pkcs8.pem -passout pass:secret -out rsa-key-encrypted.pem
openssl rsa -in rsa-key-pkcs8.pem -traditional -aes256 -passout pass:secret -out rsa-key-encrypted-old.pem

# ECDSA: SEC1 (with the parameters in front, as `openssl ecparam -genkey` writes them) and PKCS#8.
openssl ecparam -name prime256v1 -genkey -out ec-key-sec1.pem
issue ec-key-sec1.pem "$subject" intermediate.pem "$work/inter.key" push ec.pem
openssl pkcs8 -topk8 -nocrypt -in ec-key-sec1.pem -out ec-key-pkcs8.pem

# What is not good enough.
issue rsa-key-pkcs8.pem "/CN=www.example.org/C=US" intermediate.pem "$work/inter.key" push no-topic.pem
openssl genrsa -out weak-key.pem 1024
issue weak-key.pem "$subject" intermediate.pem "$work/inter.key" push weak.pem
openssl x509 -in rsa.pem -outform der -out rsa.der

# One file with text around the PEM, as `openssl pkcs12 -nodes` writes it.
p12() { openssl pkcs12 -export -inkey rsa-key-pkcs8.pem -in rsa.pem -name "MDM push" "$@"; }
p12 -certfile intermediate.pem -passout pass:secret -out modern.p12
p12 -certfile intermediate.pem -passout pass: -out modern-no-password.p12
p12 -certfile intermediate.pem -legacy -passout pass:secret -out legacy.p12
p12 -certfile intermediate.pem -legacy -passout pass: -out legacy-no-password.p12
p12 -legacy -descert -passout pass:secret -out legacy-3des.p12
p12 -keypbe NONE -certpbe NONE -nomac -passout pass: -out plain.p12
p12 -passout "pass:$(printf "p\\303\\244ssw\\303\\266rt")" -out umlaut.p12
openssl pkcs12 -export -nokeys -in rsa.pem -passout pass:secret -out no-key.p12
openssl pkcs12 -export -inkey ec-key-sec1.pem -in ec.pem -passout pass:secret -out ec.p12
openssl pkcs12 -in modern.p12 -passin pass:secret -nodes -out exported.pem
