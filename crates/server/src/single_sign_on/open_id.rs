//! OpenID Connect, as far as signing in takes it.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use activation_lock::time::Timestamp;
use apple::transport::Endpoint;
use data_encoding::BASE64URL_NOPAD;
use escrow::permit::{Actor, Permissions, Role, Scope as Where};
use escrow::sessions::Identity;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreProviderMetadata, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessTokenHash, AdditionalClaims, AsyncHttpClient, AuthorizationCode, Client, ClientId,
    ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, IdTokenClaims, IdTokenFields, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Answer, Begun, SingleSignOn};
use crate::App;
use crate::http::problem::Problem;

/// Where the provider sends people back to, below our own address.
const CALLBACK: &str = "/v1/sign-in/provider/callback";
/// How long somebody may take to prove themselves to the provider.
const LASTS: Duration = Duration::from_secs(600);
/// How long what the provider says of itself is believed when a sign-in begins.
const KNOWN_FOR: Duration = Duration::from_secs(300);
/// The most characters of a name.
const LONGEST_NAME: usize = 200;
/// How an identity may be signed: by nothing that we could have made ourselves.
const SIGNED_BY: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Every claim that has no name of its own in the standard.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Others {
    #[serde(flatten)]
    all: HashMap<String, Value>,
}

impl AdditionalClaims for Others {}

type Fields = IdTokenFields<
    Others,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

/// A provider as its own description has it.
type Described = Client<
    Others,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What the provider last said of itself.
#[derive(Default)]
pub(crate) struct Provider(Mutex<Option<(Timestamp, CoreProviderMetadata)>>);

/// What is kept of a sign-in that is under way.
#[derive(Deserialize, Serialize)]
struct Kept {
    state: String,
    nonce: String,
    verifier: String,
    until: i64,
}

/// Begins one: gives the provider's page, and the ticket.
pub(crate) async fn begin(app: &App) -> Result<Begun, Problem> {
    let settings = settings(app)?;
    let now = app.now();
    let mut known = app.provider.0.lock().await;
    let fresh = known
        .as_ref()
        .filter(|(at, _)| now.since(*at) < KNOWN_FOR)
        .map(|(_, metadata)| metadata.clone());
    let metadata = match fresh {
        Some(metadata) => metadata,
        None => {
            let metadata = describe(app, settings).await?;
            *known = Some((now, metadata.clone()));
            metadata
        }
    };
    drop(known);
    let client = client(app, settings, metadata)?;
    let random = || {
        let mut bytes = [0; 32];
        app.random.fill(&mut bytes);
        BASE64URL_NOPAD.encode(&bytes)
    };
    let kept = Kept {
        state: random(),
        nonce: random(),
        verifier: random(),
        until: now.plus(LASTS).0,
    };
    let verifier = PkceCodeVerifier::new(kept.verifier.clone());
    let (state, nonce) = (kept.state.clone(), kept.nonce.clone());
    let request = client.authorize_url(
        CoreAuthenticationFlow::AuthorizationCode,
        move || CsrfToken::new(state),
        move || Nonce::new(nonce),
    );
    let (url, ..) = request
        .add_scopes(settings.scopes.iter().cloned().map(Scope::new))
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
        .url();
    let kept = serde_json::to_vec(&kept).map_err(|_| Problem::failed())?;
    Ok(Begun {
        url: url.into(),
        ticket: app.escrow.sessions().ticket(&Zeroizing::new(kept)),
    })
}

/// Who came back from the provider with this answer, for whoever has the ticket.
pub(crate) async fn identify(
    app: &App,
    ticket: &str,
    answer: Answer<'_>,
) -> Result<Identity, Problem> {
    let settings = settings(app)?;
    let kept = app.escrow.sessions().open_ticket(ticket);
    let kept: Option<Kept> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let kept = kept
        .filter(|kept| app.now() < Timestamp(kept.until))
        .ok_or_else(Problem::sign_in_over)?;
    if !bool::from(kept.state.as_bytes().ct_eq(answer.state.as_bytes())) {
        return Err(Problem::sign_in_over());
    }
    // Read anew each time: a key that the provider withdrew is believed no longer.
    let metadata = describe(app, settings).await?;
    let client = client(app, settings, metadata)?;
    let call = Calls(app.clone());
    let tokens = client
        .exchange_code(AuthorizationCode::new(answer.code.to_owned()))
        .map_err(|error| unusable(&error))?
        .set_pkce_verifier(PkceCodeVerifier::new(kept.verifier))
        .request_async(&call)
        .await
        .map_err(|error| match error {
            openidconnect::RequestTokenError::ServerResponse(said) => {
                tracing::warn!(error = %said.error(), "the provider took no code of a sign-in");
                Problem::sign_in_over()
            }
            error => unusable(&error),
        })?;
    let token = tokens.id_token().ok_or_else(|| unproven("no ID token"))?;
    let now = SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(app.machine_now().0).unwrap_or(0));
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs(SIGNED_BY)
        .set_time_fn(move || now.into());
    let claims = token
        .claims(&verifier, &Nonce::new(kept.nonce))
        .map_err(|error| unproven(&error))?;
    if let Some(hash) = claims.access_token_hash() {
        let key = token.signing_key(&verifier);
        let own = token
            .signing_alg()
            .ok()
            .zip(key.ok())
            .and_then(|(by, key)| AccessTokenHash::from_token(tokens.access_token(), by, key).ok());
        if own.as_ref() != Some(hash) {
            return Err(unproven("an access token of another sign-in"));
        }
    }
    proved_well(settings, claims)?;
    let mut said = Said::of_token(claims);
    let knows_all = said.has(&settings.groups_claim) && said.has(&settings.login_claim);
    if !knows_all && client.user_info_url().is_some() {
        let request = client
            .user_info(
                tokens.access_token().to_owned(),
                Some(claims.subject().clone()),
            )
            .map_err(|error| unusable(&error))?;
        let more: UserInfoClaims<Others, CoreGenderClaim> = request
            .request_async(&call)
            .await
            .map_err(|error| unproven(&error))?;
        said.add(&more);
    }
    identity(app, settings, claims.subject().as_str(), &said).await
}

fn settings(app: &App) -> Result<&SingleSignOn, Problem> {
    let settings = app.settings.single_sign_on.as_ref();
    settings.ok_or_else(Problem::no_single_sign_on)
}

async fn describe(app: &App, settings: &SingleSignOn) -> Result<CoreProviderMetadata, Problem> {
    let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|error| unusable(&error))?;
    let call = Calls(app.clone());
    let described = CoreProviderMetadata::discover_async(issuer, &call).await;
    described.map_err(|error| unusable(&error))
}

fn client(
    app: &App,
    settings: &SingleSignOn,
    metadata: CoreProviderMetadata,
) -> Result<Described, Problem> {
    let secret = settings.client_secret_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        text.map(|text| ClientSecret::new(text.trim().to_owned()))
            .map_err(|error| {
                tracing::error!(%error, "[single_sign_on] client_secret_file cannot be read");
                Problem::failed()
            })
    });
    // A person's browser is sent there as well.
    is_secure(metadata.authorization_endpoint().as_str())?;
    let public = app.settings.public_url.as_ref();
    let base = public.map_or(app.url.as_str(), url::Url::as_str);
    let back = format!("{}{}", base.trim_end_matches('/'), CALLBACK);
    let back = RedirectUrl::new(back).map_err(|error| unusable(&error))?;
    let id = ClientId::new(settings.client_id.clone());
    Ok(Client::from_provider_metadata(metadata, id, secret.transpose()?).set_redirect_uri(back))
}

/// https, or http on this machine; a query may be there.
fn is_secure(address: &str) -> Result<(), Problem> {
    let bare = address.split(['?', '#']).next().unwrap_or_default();
    bare.parse::<Endpoint>()
        .map(|_| ())
        .map_err(|error| unusable(&error))
}

/// A call did not get an answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

/// How the library's calls are made: by the one HTTP client, and to nobody that cannot prove who it is.
struct Calls(App);

impl<'c> AsyncHttpClient<'c> for Calls {
    type Error = Unanswered;
    type Future =
        Pin<Box<dyn Future<Output = Result<HttpResponse, Unanswered>> + Send + Sync + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let address = request.uri().to_string();
            is_secure(&address).map_err(|_| {
                Unanswered(format!("{address} is neither https nor on this machine"))
            })?;
            app.mdm.call(request).await.map_err(Unanswered)
        })
    }
}

/// The ways in which they proved themselves, as the provider tells them (`amr`, RFC 8176).
fn proved_well(
    settings: &SingleSignOn,
    claims: &IdTokenClaims<Others, CoreGenderClaim>,
) -> Result<(), Problem> {
    let ways: BTreeSet<&str> = claims
        .auth_method_refs()
        .into_iter()
        .flatten()
        .map(|way| way.as_str())
        .collect();
    if settings.methods.is_empty()
        || settings
            .methods
            .iter()
            .any(|way| ways.contains(way.as_str()))
    {
        return Ok(());
    }
    Err(Problem::not_admitted(
        "The provider had you prove yourself in a way that does not suffice here.",
    )
    .hint("Sign in there with a second factor."))
}

/// What a provider says of a person.
struct Said(HashMap<String, Value>);

impl Said {
    fn of_token(claims: &IdTokenClaims<Others, CoreGenderClaim>) -> Self {
        Self::of(serde_json::to_value(claims))
    }

    /// What a JSON value holds: each claim by its name.
    fn of(value: serde_json::Result<Value>) -> Self {
        Self(match value {
            Ok(Value::Object(all)) => all.into_iter().collect(),
            _ => HashMap::new(),
        })
    }

    fn add(&mut self, more: &UserInfoClaims<Others, CoreGenderClaim>) {
        for (name, value) in Self::of(serde_json::to_value(more)).0 {
            self.0.entry(name).or_insert(value);
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)?
            .as_str()
            .map(str::trim)
            .filter(|t| !t.is_empty())
    }

    /// A list of texts; one alone is a list of one.
    fn list(&self, name: &str) -> BTreeSet<&str> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => [one.as_str()].into(),
            _ => BTreeSet::new(),
        }
    }
}

async fn identity(
    app: &App,
    settings: &SingleSignOn,
    subject: &str,
    said: &Said,
) -> Result<Identity, Problem> {
    let login = said.text(&settings.login_claim).unwrap_or_default();
    let name = said.text("name").unwrap_or(login);
    let name: String = name
        .chars()
        .filter(|c| !crate::misleads(*c))
        .take(LONGEST_NAME)
        .collect();
    let reader = Actor::system("single sign-on", Permissions::all());
    let known = app.escrow.organisations().list(&reader).await?;
    let has = said.list(&settings.groups_claim);
    let mut roles: Vec<(Where, Role)> = Vec::new();
    for group in &settings.groups {
        if !has.contains(group.name.as_str()) {
            continue;
        }
        let place = match &group.organisation {
            None => Where::All,
            Some(wanted) => {
                let found = known.iter().find(|one| one.name == *wanted);
                let Some(found) = found else {
                    tracing::error!(
                        organisation = wanted,
                        "[single_sign_on] names an organisation that there is not"
                    );
                    continue;
                };
                Where::One(found.id.clone())
            }
        };
        for role in &group.roles {
            let grant = (place.clone(), *role);
            if !roles.contains(&grant) {
                roles.push(grant);
            }
        }
    }
    Ok(Identity {
        issuer: settings.issuer.clone(),
        subject: subject.to_owned(),
        login: login.to_owned(),
        name: if name.trim().is_empty() {
            login.to_owned()
        } else {
            name
        },
        // One that the provider itself has not seen to be theirs is told nothing.
        email: said
            .text("email")
            .filter(|_| said.0.get("email_verified") != Some(&Value::Bool(false)))
            .map(str::to_owned),
        roles,
    })
}

/// The provider, or what is configured of it, is not as it must be.
fn unusable(error: &dyn std::error::Error) -> Problem {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    tracing::error!(error = words, "the provider of identities cannot be used");
    Problem::provider_unusable()
}

/// It vouches for nobody in a way that is to be believed.
fn unproven(why: impl std::fmt::Display) -> Problem {
    tracing::warn!(%why, "what the provider of identities says proves nothing");
    Problem::sign_in_over()
}
