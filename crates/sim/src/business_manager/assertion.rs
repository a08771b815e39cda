//! The client assertion of the token endpoint: a JWT with ES256, read strictly. Contract sheet 4.7, RFC 7515, 7518 and 7523.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, de::DeserializeOwned};

/// How long an assertion may live, in seconds: 180 days.
const LONGEST: i64 = 180 * 24 * 60 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// A client assertion in its parts; who made it is not yet known.
pub(super) struct Assertion {
    header: Header,
    claims: Claims,
    signed: String,
    signature: Vec<u8>,
}

/// What an assertion must fit.
pub(super) struct Demands<'a> {
    pub(super) client_id: &'a str,
    pub(super) key_id: &'a str,
    /// The uncompressed point.
    pub(super) public_key: &'a [u8],
    pub(super) audience: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// How far in the future `iat` may be, in seconds.
    pub(super) skew: i64,
}

impl Assertion {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the assertion is not three parts with dots between".to_owned());
        };
        Ok(Self {
            header: part(header, "header")?,
            claims: part(claims, "claims")?,
            signed: format!("{header}.{claims}"),
            signature: bytes(signature, "signature")?,
        })
    }

    pub(super) fn key_id(&self) -> &str {
        &self.header.kid
    }

    pub(super) fn jti(&self) -> &str {
        &self.claims.jti
    }

    /// When it ends, in seconds since 1970.
    pub(super) fn ends(&self) -> i64 {
        self.claims.exp
    }

    /// Whether it is good; the error says why not.
    pub(super) fn check(&self, demands: &Demands<'_>) -> Result<(), String> {
        let Self {
            header,
            claims,
            signed,
            signature,
        } = self;
        let refuse = |why: &str| Err(why.to_owned());
        if header.alg != "ES256" {
            return refuse("alg is not ES256");
        }
        if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
            return refuse("typ is neither JWT nor missing");
        }
        if header.kid != demands.key_id {
            return refuse("kid is not a key of this client");
        }
        if signature.len() != 64 {
            return refuse("the signature is not r and s with 32 bytes each");
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, demands.public_key);
        if key.verify(signed.as_bytes(), signature).is_err() {
            return refuse("the signature is not of this key");
        }
        if claims.iss != demands.client_id || claims.sub != demands.client_id {
            return refuse("iss and sub are not both the client id");
        }
        if claims.aud != demands.audience {
            return refuse("aud is not the token endpoint");
        }
        if claims.iat > demands.now.saturating_add(demands.skew) {
            return refuse("iat is in the future");
        }
        if claims.exp <= demands.now {
            return refuse("the assertion has expired");
        }
        if claims.exp.saturating_sub(claims.iat) > LONGEST {
            return refuse("exp is more than 180 days after iat");
        }
        if claims.jti.is_empty() {
            return refuse("jti is empty");
        }
        Ok(())
    }
}

fn bytes(part: &str, name: &str) -> Result<Vec<u8>, String> {
    BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| format!("the {name} of the assertion is not base64url without padding"))
}

fn part<T: DeserializeOwned>(part: &str, name: &str) -> Result<T, String> {
    let json = bytes(part, name)?;
    // serde would take the values alone, as a list, for an object.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(format!("the {name} of the assertion is no JSON object"));
    }
    // A claim that is missing, unknown or given twice is named by serde; values are not.
    serde_json::from_slice(&json).map_err(|error| {
        let told = error.to_string();
        let named = ["missing field", "unknown field", "duplicate field"]
            .iter()
            .any(|start| told.starts_with(start));
        match named {
            true => format!("the {name} of the assertion: {told}"),
            false => format!("the {name} of the assertion is not the JSON it must be"),
        }
    })
}
