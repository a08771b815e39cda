//! Principals and their tokens.
//!
//! A token is 32 random bytes behind a prefix that secret scanners can look for, with a checksum that tells a token
//! from a typing error before the database is asked. It is shown once and stored as a hash.

use std::time::Duration;

use activation_lock::time::Timestamp;
use data_encoding::BASE32_NOPAD;
use seal::{Random, TokenHash};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::approvals::Leave;
use crate::db::{Row, Tx, params};
use crate::permit::{
    Actor, Admin, Grants, OrganisationId, Permission, Permissions, Permit, PrincipalKind, Proof,
    Refusal, Scope,
};
use crate::{Error, Escrow, Result, audit, people};

/// What every token begins with: this product, and that it is a token.
pub const TOKEN_PREFIX: &str = "lw_token_";

const SECRET_BYTES: usize = 32;
const BODY_CHARS: usize = 52;
const CHECK_CHARS: usize = 6;
/// How often the last use of a token is written, at most.
const USE_NOTED_EVERY: Duration = Duration::from_secs(600);

/// A secret in plaintext, on its way to the one who asked for it. Shown once; it cannot be had again.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// 32 random bytes behind a prefix that says what they are for, with a checksum behind them.
    pub(crate) fn generate(prefix: &str, random: &(impl Random + ?Sized)) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        random.fill(secret.as_mut_slice());
        let mut text = Zeroizing::new(String::with_capacity(
            prefix.len() + BODY_CHARS + CHECK_CHARS,
        ));
        text.push_str(prefix);
        BASE32_NOPAD.encode_append(secret.as_slice(), &mut text);
        text.make_ascii_lowercase();
        let check = check_of(&text);
        text.push_str(&check);
        Self(text)
    }

    /// The plaintext. Named so that every use can be found.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether a text has the form of a token with a right checksum. It says nothing about whether it is valid.
#[must_use]
pub fn looks_like_a_token(text: &str) -> bool {
    has_form(text, TOKEN_PREFIX)
}

/// Whether a text has the form of a secret of ours with this prefix, and a right checksum.
pub(crate) fn has_form(text: &str, prefix: &str) -> bool {
    let body = prefix.len() + BODY_CHARS;
    text.is_ascii()
        && text.starts_with(prefix)
        && text.len() == body + CHECK_CHARS
        && check_of(&text[..body]) == text[body..]
}

/// The first characters of the hash of what they stand behind: enough to find a typing error, too few to help
/// guessing.
fn check_of(text: &str) -> String {
    let mut hash = TokenHash::of(text).hex();
    hash.truncate(CHECK_CHARS);
    hash
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for; shown in lists and on the audit trail as the actor's name.
    pub name: String,
    /// Where it may act.
    pub scope: Scope,
    /// What it may do.
    pub permissions: Permissions,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A token as listed: everything but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Its identifier, which is also what the audit trail names as proof.
    pub id: String,
    /// The principal it is.
    pub principal: String,
    /// The person whose it is: it may no more than they may. `None` for a token of nobody in particular.
    pub owner: Option<String>,
    /// What it is for.
    pub name: String,
    /// Where it may act.
    pub scope: Scope,
    /// What it may do.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to within ten minutes.
    pub used_at: Option<Timestamp>,
}

macro_rules! select_tokens {
    ($rest:literal) => {
        concat!(
            "SELECT tokens.id, tokens.organisation, principal, owner, principals.name AS name, principals.kind AS kind, hash, ",
            "permissions, tokens.created_at, tokens.created_by, expires_at, revoked_at, used_at FROM tokens ",
            "JOIN principals ON principals.id = tokens.principal ",
            $rest
        )
    };
}

impl TokenView {
    fn from_row(row: &Row) -> Result<Self> {
        let organisation: Option<String> = row.get("organisation")?;
        Ok(Self {
            id: row.get("id")?,
            principal: row.get("principal")?,
            owner: row.get("owner")?,
            name: row.get("name")?,
            scope: organisation.map_or(Scope::All, |id| Scope::One(OrganisationId::new(id))),
            permissions: Permissions::from_text(&row.get::<String>("permissions")?),
            created_at: row.get("created_at")?,
            created_by: row.get("created_by")?,
            expires_at: row.get("expires_at")?,
            revoked_at: row.get("revoked_at")?,
            used_at: row.get("used_at")?,
        })
    }

    /// Whether it opens anything at a moment.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|e| now < e)
    }
}

/// The verbs on principals and tokens. See [`Escrow::principals`].
pub struct Principals<'a>(pub(crate) &'a Escrow);

impl Principals<'_> {
    /// Makes a token with a principal of its own. Nobody gives away what they do not have: the new token's
    /// permissions and organisations must be among the giver's. A person owns the tokens that they and their tokens make.
    ///
    /// # Errors
    /// [`Error::Refused`] when the giver lacks something of it; or when the database fails.
    pub async fn create_token(
        &self,
        permit: &Permit<Admin>,
        new: NewToken,
    ) -> Result<(TokenView, SecretText)> {
        let giver = permit.actor();
        let has = giver.grants().in_scope(&new.scope);
        let beyond = new.permissions.iter().find(|p| !has.allow(*p));
        let refusal = beyond.map(|permission| {
            if giver.grants().somewhere().allow(permission) {
                Refusal::Organisation {
                    actor: giver.name().to_owned(),
                    organisation: new
                        .scope
                        .organisation()
                        .cloned()
                        .unwrap_or_else(|| OrganisationId::new("*")),
                }
            } else {
                Refusal::Beyond {
                    actor: giver.name().to_owned(),
                    permission,
                }
            }
        });
        if let Some(refusal) = refusal {
            return self
                .0
                .audit_refusal(permit, Err(Error::Refused(refusal)))
                .await;
        }
        let text = SecretText::generate(TOKEN_PREFIX, self.0.random());
        let hash = TokenHash::of(text.expose()).hex();
        let (escrow, confirmed) = (self.0.clone(), permit.clone());
        let result = self
            .0
            .db
            .write("principals.create_token", async move |tx| {
                confirmed.confirm(tx).await?;
                let now = tx.now();
                let (principal, id) = (tx.new_id().to_string(), tx.new_id().to_string());
                let organisation = new.scope.organisation().map(OrganisationId::as_str);
                let owner = confirmed.actor().human().map(str::to_owned);
                tx.execute(
                    "INSERT INTO principals (id, organisation, kind, name, created_at) VALUES ($1, $2, $3, $4, $5)",
                    params![
                        principal.as_str(),
                        organisation,
                        PrincipalKind::Token.as_str(),
                        new.name.as_str(),
                        now
                    ],
                )
                .await?;
                tx.execute(
                    "INSERT INTO tokens (id, organisation, principal, hash, permissions, created_at, created_by, \
                     expires_at, owner) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    params![
                        id.as_str(),
                        organisation,
                        principal.as_str(),
                        hash.as_str(),
                        new.permissions.to_text(),
                        now,
                        confirmed.actor().name(),
                        new.expires_at,
                        owner.as_deref()
                    ],
                )
                .await?;
                let entry = confirmed
                    .entry("token.create")
                    .subject(&id)
                    .detail("name", new.name.as_str())
                    .detail("organisation", organisation.unwrap_or("*"))
                    .detail("permissions", new.permissions.to_text());
                audit::record(tx, &escrow, entry).await?;
                Ok(TokenView {
                    id,
                    principal,
                    owner,
                    name: new.name.clone(),
                    scope: new.scope.clone(),
                    permissions: new.permissions,
                    created_at: now,
                    created_by: confirmed.actor().name().to_owned(),
                    expires_at: new.expires_at,
                    revoked_at: None,
                    used_at: None,
                })
            })
            .await;
        Ok((self.0.audit_refusal(permit, result).await?, text))
    }

    /// The tokens of the permit's organisation, and those of all organisations when the actor may act in all;
    /// revoked ones too, newest first.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn list_tokens(&self, permit: &Permit<Admin>) -> Result<Vec<TokenView>> {
        let organisation = permit.organisation().clone();
        let all = i64::from(
            permit
                .actor()
                .grants()
                .everywhere()
                .allow(Permission::Admin),
        );
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    select_tokens!(
                        "WHERE tokens.organisation = $1 OR (tokens.organisation IS NULL AND $2 = 1) ORDER BY tokens.id DESC"
                    ),
                    params![organisation.as_str(), all],
                )
                .await?
                .iter()
                .map(TokenView::from_row)
                .collect()
            })
            .await
    }

    /// Takes a token back, at once and for ever. False when there is none of that identifier that the actor may
    /// manage, or it was revoked before.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn revoke_token(&self, permit: &Permit<Admin>, id: &str) -> Result<bool> {
        let (escrow, confirmed, id) = (self.0.clone(), permit.clone(), id.to_owned());
        let result = self
            .0
            .db
            .write("principals.revoke_token", async move |tx| {
                confirmed.confirm(tx).await?;
                let all = i64::from(confirmed.actor().grants().everywhere().allow(Permission::Admin));
                let now = tx.now();
                let revoked = tx
                    .execute(
                        "UPDATE tokens SET revoked_at = $3, revoked_by = $4 WHERE id = $1 AND revoked_at IS NULL \
                         AND (organisation = $2 OR (organisation IS NULL AND $5 = 1))",
                        params![
                            id.as_str(),
                            confirmed.organisation().as_str(),
                            now,
                            confirmed.actor().name(),
                            all
                        ],
                    )
                    .await?;
                if revoked == 1 {
                    audit::record(tx, &escrow, confirmed.entry("token.revoke").subject(&id)).await?;
                }
                Ok(revoked == 1)
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }

    /// Who presents this token. One answer for a token that is unknown, revoked or expired: `None`. `address` is
    /// where it came from, for the audit trail.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(&self, text: &str, address: Option<&str>) -> Result<Option<Actor>> {
        if !looks_like_a_token(text) {
            return Ok(None);
        }
        let hash = TokenHash::of(text);
        let key = hash.hex();
        let found = self
            .0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let row = tx
                    .fetch_optional(select_tokens!("WHERE hash = $1"), params![key.as_str()])
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let token = TokenView::from_row(&row)?;
                let mut grants = Grants::of(token.scope.clone(), token.permissions);
                if let Some(owner) = &token.owner {
                    if people::is_shut_out(tx, owner).await? {
                        return Ok(None);
                    }
                    grants = grants.limited_to(&people::grants_of(tx, owner).await?);
                }
                Ok(Some((token, grants, row.get::<String>("hash")?, now)))
            })
            .await?;
        let Some((token, grants, stored, now)) = found else {
            return Ok(None);
        };
        let same: bool = stored.as_bytes().ct_eq(hash.hex().as_bytes()).into();
        if !same || !token.is_valid(now) {
            return Ok(None);
        }
        if token
            .used_at
            .is_none_or(|used| now.since(used) >= USE_NOTED_EVERY)
        {
            self.note_use(&token.id).await?;
        }
        Ok(Some(Actor {
            principal: token.principal,
            kind: PrincipalKind::Token,
            name: token.name,
            grants,
            proof: Proof::Token(token.id),
            address: address.map(str::to_owned),
            owner: token.owner,
            unfinished: false,
            leave: Leave::Plain,
        }))
    }

    async fn note_use(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.0
            .db
            .write("principals.note_use", async move |tx| {
                let now = tx.now();
                tx.execute(
                    "UPDATE tokens SET used_at = $2 WHERE id = $1",
                    params![id.as_str(), now],
                )
                .await?;
                Ok(())
            })
            .await
    }
}

/// Whether a token opens anything now, in another verb's transaction.
/// Whether a token was taken back. One that has only expired was not.
pub(crate) async fn is_revoked(tx: &mut Tx<'_>, id: &str) -> Result<bool> {
    let row = tx
        .fetch_optional("SELECT revoked_at FROM tokens WHERE id = $1", params![id])
        .await?;
    match row {
        Some(row) => Ok(row.get::<Option<Timestamp>>("revoked_at")?.is_some()),
        None => Ok(true),
    }
}

pub(crate) async fn is_valid(tx: &mut Tx<'_>, id: &str) -> Result<bool> {
    let now = tx.now();
    let row = tx
        .fetch_optional(select_tokens!("WHERE tokens.id = $1"), params![id])
        .await?;
    let Some(row) = row else { return Ok(false) };
    let token = TokenView::from_row(&row)?;
    Ok(token.is_valid(now)
        && match &token.owner {
            Some(owner) => !people::is_shut_out(tx, owner).await?,
            None => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for byte in bytes {
                *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn a_token_can_be_told_from_a_typing_error() {
        let text = SecretText::generate(TOKEN_PREFIX, &Counting(0.into()));
        let text = text.expose();
        assert!(looks_like_a_token(text));
        for at in TOKEN_PREFIX.len()..text.len() {
            let mut wrong = text.to_owned().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            assert!(
                !looks_like_a_token(std::str::from_utf8(&wrong).unwrap()),
                "at {at}"
            );
        }
        assert!(!looks_like_a_token(&text.to_ascii_uppercase()));
        assert!(!looks_like_a_token(&text[..text.len() - 1]));
        assert!(!looks_like_a_token(""));
    }
}
