//! What the vault signs of its record: canonical JSON, and the signature of exactly that text.

use seal::{CheckpointPublicKey, Keyring};
use serde_json::{Value as Json, json};

use super::chain::Counters;
use super::entry::canonical;

/// The version of the texts' shape.
const VERSION: u64 = 1;

/// A signed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Canonical JSON: keys sorted, no spaces.
    pub text: String,
    /// Ed25519 over `text`, 128 hexadecimal digits.
    pub signature: String,
}

impl Signed {
    /// Signs `said`, with its kind, the version and the key's id.
    pub(super) fn new(keyring: &Keyring, kind: &str, mut said: Json) -> Self {
        said["kind"] = kind.into();
        said["version"] = VERSION.into();
        said["key"] = keyring.checkpoint_keys()[0].id().to_string().into();
        let text = canonical(&said);
        let signature = keyring.sign_checkpoint(&text);
        Self { text, signature }
    }

    /// What it says, when it is of this kind and one of these keys signed it.
    pub(super) fn open(&self, keys: &[CheckpointPublicKey], kind: &str) -> Result<Json, String> {
        let said: Json =
            serde_json::from_str(&self.text).map_err(|_| "its text cannot be read".to_owned())?;
        let named = said["key"].as_str().unwrap_or_default();
        let key = keys
            .iter()
            .find(|key| key.id().to_string() == named)
            .ok_or_else(|| "its key is not one of this vault's".to_owned())?;
        if !key.verifies(&self.text, &self.signature) {
            return Err("its signature is not of this text".to_owned());
        }
        if said["kind"] != kind || said["version"] != VERSION {
            return Err(format!("it is not a {kind} of a version known here"));
        }
        Ok(said)
    }

    /// The line that goes outside: `{"checkpoint":...,"signature":"..."}`, canonical JSON without a newline. What was signed is
    /// the canonical text of the member `checkpoint`.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!(
            "{{\"checkpoint\":{},\"signature\":{}}}",
            self.text,
            Json::from(self.signature.as_str())
        )
    }

    /// Reads [`Self::to_line`]; nothing when it is something else. It says nothing about the signature.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let said: Json = serde_json::from_str(line).ok()?;
        let members = said.as_object()?;
        Some(Self {
            text: members
                .get("checkpoint")
                .filter(|said| said.is_object() && members.len() == 2)
                .map(canonical)?,
            signature: members.get("signature")?.as_str()?.to_owned(),
        })
    }
}

/// Counters as they are signed.
pub(super) fn write_counters(counters: &Counters) -> Json {
    let counted = counters.iter().filter(|(_, counter)| **counter > 0);
    json!(counted.collect::<std::collections::BTreeMap<_, _>>())
}

/// Counters as they were signed.
pub(super) fn read_counters(said: &Json) -> Option<Counters> {
    let members = said.as_object()?.iter();
    members
        .map(|(writer, counter)| Some((writer.clone(), counter.as_u64()?)))
        .collect()
}
