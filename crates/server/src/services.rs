//! Apple's services as the vault's credentials see them, with the connections and sessions that are open to them. One a
//! credential: Apple may not bear two sessions of one server token (contract sheet 2.28), and one access token serves all.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use activation_lock::lock::LockOutcome;
use activation_lock::unlock::Outcome;
use apple::business_manager::assertion::SigningKey;
use apple::business_manager::{ApiAccount, BusinessService};
use apple::dep::token::ServerToken;
use apple::dep::{DepService, NanoDep};
use apple::escrow_key_unlock::UnlockService;
use apple::push_certificate::PushCertificate;
use escrow::Escrow;
use escrow::business_apis::BusinessApiView;
use escrow::permit::OrganisationId;
use escrow::server_tokens::{OpenServerToken, ServerTokenView, TokenKind};
use lru::LruCache;
use seal::Random;

use crate::Settings;

/// Credentials of one kind whose connections are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not zero");

/// See the module.
pub(crate) struct Services {
    escrow: Escrow,
    random: Arc<dyn Random>,
    settings: Settings,
    unlock: Mutex<LruCache<String, UnlockService>>,
    enrolment: Mutex<LruCache<String, DepService>>,
    business: Mutex<LruCache<String, BusinessService>>,
}

/// Why there is no service.
pub(crate) enum NoService {
    /// A person has to mend the credential: it was removed, does not open, or cannot be used.
    Credential(String),
    /// The vault failed just now.
    Failed(String),
}

impl NoService {
    /// What it is for an unlock (R13).
    pub(crate) fn unlock_outcome(&self) -> Outcome {
        match self {
            Self::Credential(_) => Outcome::Credential,
            Self::Failed(_) => Outcome::Unavailable,
        }
    }

    /// What it is for a lock.
    pub(crate) fn lock_outcome(&self) -> LockOutcome {
        match self {
            Self::Credential(_) => LockOutcome::Credential,
            Self::Failed(_) => LockOutcome::Unavailable,
        }
    }

    /// In words.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Credential(why) | Self::Failed(why) => why,
        }
    }

    /// A sealed thing that does not open has lost its key or was changed, which a person has to mend.
    pub(crate) fn of(error: &escrow::Error, what: &str) -> Self {
        match error {
            escrow::Error::Seal(_) | escrow::Error::Corrupt(_) => {
                Self::Credential(format!("{what} does not open; run doctor, or add it again"))
            }
            other => Self::Failed(format!("{what} could not be read: {other}")),
        }
    }

    fn unusable(what: &str, why: &dyn std::fmt::Display) -> Self {
        Self::Credential(format!("{what} cannot be used: {why}"))
    }
}

impl Services {
    pub(crate) fn new(escrow: &Escrow, random: &Arc<dyn Random>, settings: &Settings) -> Self {
        Self {
            escrow: escrow.clone(),
            random: random.clone(),
            settings: settings.clone(),
            unlock: Mutex::new(LruCache::new(KEPT)),
            enrolment: Mutex::new(LruCache::new(KEPT)),
            business: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The unlock service, as one push certificate sees it.
    pub(crate) async fn unlock(
        &self,
        organisation: &OrganisationId,
        certificate: &str,
        topic: &str,
    ) -> Result<UnlockService, NoService> {
        if let Some(service) = kept(&self.unlock).get(certificate) {
            return Ok(service.clone());
        }
        let what = format!("the push certificate for {topic}");
        let certificates = self.escrow.push_certificates();
        let opened = match certificates.open_by_id(organisation, certificate).await {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                let why = format!("{what} was removed; add one for it");
                return Err(NoService::Credential(why));
            }
            Err(error) => return Err(NoService::of(&error, &what)),
        };
        let identity = PushCertificate::from_sealed_pem(&opened.pem)
            .map_err(|error| NoService::unusable(&what, &error))?;
        let service = UnlockService::new(&self.settings.apple, &identity)
            .map_err(|error| NoService::unusable(&what, &error))?;
        kept(&self.unlock).put(certificate.to_owned(), service.clone());
        Ok(service)
    }

    /// The enrolment service, as one server token sees it, or through the NanoDEP that has it.
    pub(crate) async fn enrolment(
        &self,
        organisation: &OrganisationId,
        token: &str,
    ) -> Result<(DepService, ServerTokenView), NoService> {
        let what = "the server token";
        let opened = match self.escrow.server_tokens().open(organisation, token).await {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                let why = format!("{what} was removed; import one");
                return Err(NoService::Credential(why));
            }
            Err(error) => return Err(NoService::of(&error, what)),
        };
        let key = format!("{}@{}", opened.view.id, opened.view.version);
        // Looked for and made in one go: two services of one token would each have a session (contract sheet 2.28).
        let mut services = kept(&self.enrolment);
        if let Some(service) = services.get(&key) {
            return Ok((service.clone(), opened.view));
        }
        let service = self
            .open_enrolment(&opened)
            .map_err(|error| NoService::unusable(what, &error))?;
        services.put(key, service.clone());
        Ok((service, opened.view))
    }

    fn open_enrolment(&self, opened: &OpenServerToken) -> Result<DepService, String> {
        let settings = &self.settings.enrolment;
        let made = match opened.view.kind {
            TokenKind::Apple => {
                let token = ServerToken::from_json(opened.secret.as_bytes())
                    .map_err(|error| error.to_string())?;
                let random = self.random.clone();
                DepService::new(
                    settings,
                    token,
                    Arc::new(move |bytes: &mut [u8]| random.fill(bytes)),
                )
            }
            TokenKind::NanoDep => {
                let url = opened.view.base_url.as_deref().unwrap_or_default();
                let name = opened.view.dep_name.as_deref().unwrap_or_default();
                let proxy =
                    NanoDep::new(url, name, &opened.secret).map_err(|error| error.to_string())?;
                let authorities = &self.settings.mdm_authorities;
                DepService::through_nanodep(&proxy, authorities, settings.timeouts)
            }
        };
        made.map_err(|error| error.to_string())
    }

    /// The Business and School Manager API, as the account of an organisation sees it; `None` when there is no account.
    pub(crate) async fn business(
        &self,
        organisation: &OrganisationId,
    ) -> Result<Option<(BusinessService, BusinessApiView)>, NoService> {
        let what = "the API account of Apple Business Manager or Apple School Manager";
        let opened = match self.escrow.business_apis().open(organisation).await {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(None),
            Err(error) => return Err(NoService::of(&error, what)),
        };
        let key = format!("{organisation}@{}", opened.view.version);
        if let Some(service) = kept(&self.business).get(&key) {
            return Ok(Some((service.clone(), opened.view)));
        }
        let signing = SigningKey::from_pem(opened.private_key.as_bytes())
            .map_err(|error| NoService::unusable(what, &error))?;
        let account = ApiAccount::new(&opened.view.client_id, &opened.view.key_id, signing)
            .map_err(|error| NoService::unusable(what, &error))?;
        let random = self.random.clone();
        let settings = &self.settings.business;
        let service = BusinessService::new(settings, account, move |bytes| random.fill(bytes))
            .map_err(|error| NoService::unusable(what, &error))?;
        kept(&self.business).put(key, service.clone());
        Ok(Some((service, opened.view)))
    }
}

fn kept<S>(services: &Mutex<LruCache<String, S>>) -> MutexGuard<'_, LruCache<String, S>> {
    services.lock().unwrap_or_else(PoisonError::into_inner)
}
