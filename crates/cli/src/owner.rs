//! Whoever sets a vault up from this machine's own files: `init`, the sandbox, the benchmark.

use ::sim::{ApiAccount as SimAccount, Dep, DepToken, NanoMdm, PushCertificate as SimCertificate};
use apple::business_manager::ApiAccount;
use apple::business_manager::assertion::SigningKey;
use apple::dep::key::TokenKey;
use apple::dep::token::ServerToken;
use apple::push_certificate::PushCertificate;
use data_encoding::HEXLOWER;
use escrow::Escrow;
use escrow::business_apis::NewBusinessApi;
use escrow::connections::{ConnectionChange, ConnectionKind, HookAuth, NewConnection, UnlockVia};
use escrow::organisations::Created;
use escrow::people::{Login, NewPerson};
use escrow::permit::{
    Actor, Admin, Connections, OrganisationId, Permissions, Permit, Read, Right, Role, Scope,
};
use escrow::principals::{NewToken, SecretText};
use escrow::push_certificates::NewPushCertificate;
use escrow::server_tokens::{Access, NewServerToken};
use seal::Password;
use server::lifecycle;
use zeroize::Zeroizing;

use crate::machine;

/// An organisation, in the hands of the program itself.
pub(crate) struct Owner<'a> {
    escrow: &'a Escrow,
    actor: Actor,
    organisation: OrganisationId,
}

/// What setting up can fail with.
pub(crate) type Broken = Box<dyn std::error::Error>;

/// 256 random bits as text.
pub(crate) fn secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    machine::random().fill(bytes.as_mut_slice());
    Zeroizing::new(HEXLOWER.encode(bytes.as_slice()))
}

impl<'a> Owner<'a> {
    /// Of the organisation of that name, which is made when it is not there. `who` is named on the audit trail.
    pub(crate) async fn new(
        escrow: &'a Escrow,
        who: &str,
        organisation: &str,
    ) -> escrow::Result<Self> {
        let actor = Actor::system(who, Permissions::all());
        let organisations = escrow.organisations();
        let organisation = match organisations.create(&actor, organisation).await? {
            Created::New(organisation) => organisation.id,
            Created::NameTaken => {
                let found = organisations.find(&actor, organisation).await?;
                found
                    .expect("a name that is taken is somebody's, and no organisation is deleted")
                    .id
            }
        };
        Ok(Self {
            escrow,
            actor,
            organisation,
        })
    }

    /// Leave to do something.
    pub(crate) async fn permit<P: Right>(&self, subject: &str) -> escrow::Result<Permit<P>> {
        self.escrow
            .authorise(&self.actor, &self.organisation, subject)
            .await
    }

    /// Somebody with a password, and every role but that of emergencies, in all organisations.
    pub(crate) async fn person(
        &self,
        login: &Login,
        name: &str,
        password: Password,
    ) -> Result<(), Broken> {
        let everywhere = OrganisationId::new("*");
        let subject = format!("person {login}");
        let permit = self
            .escrow
            .authorise(&self.actor, &everywhere, subject)
            .await?;
        let new = NewPerson {
            login: login.clone(),
            name: name.to_owned(),
            email: None,
        };
        let people = self.escrow.people();
        let (view, invitation) = people.add(&permit, new).await??;
        self.escrow
            .credentials()
            .accept(invitation.expose(), password, None)
            .await?;
        let roles = Role::OF_THE_FIRST;
        people
            .set_roles(&permit, &view.id, &Scope::All, roles)
            .await??;
        Ok(())
    }

    /// A token of that name that may do everything everywhere. Earlier ones of the name end.
    pub(crate) async fn token(&self, name: &str) -> escrow::Result<SecretText> {
        let permit = self.permit::<Admin>("tokens").await?;
        let principals = self.escrow.principals();
        for old in principals.list_tokens(&permit).await? {
            if old.name == name && old.revoked_at.is_none() {
                principals.revoke_token(&permit, &old.id).await?;
            }
        }
        let everything = Permissions::SCOPES
            .iter()
            .filter_map(|scope| Permissions::of_scope(scope))
            .fold(Permissions::NONE, Permissions::and);
        let new = NewToken {
            name: name.to_owned(),
            scope: Scope::All,
            permissions: everything,
            expires_at: None,
        };
        Ok(principals.create_token(&permit, new).await?.1)
    }

    /// Connects a fake MDM, or has the connection of that name point to it. Gives the key that its webhooks are to be signed
    /// with, which is another one each time.
    pub(crate) async fn connect(
        &self,
        name: &str,
        mdm: &NanoMdm,
        api_key: Zeroizing<String>,
        max_rate: Option<f64>,
    ) -> Result<Zeroizing<String>, Broken> {
        let permit = self.permit::<Connections>(name).await?;
        let key = secret();
        let connections = self.escrow.connections();
        let base_url = mdm.url();
        let known = connections
            .get(&self.permit::<Read>(name).await?, name)
            .await?;
        if known.is_some() {
            let change = ConnectionChange {
                base_url: Some(base_url),
                username: None,
                api_key: Some(api_key),
                unlock_via: None,
            };
            connections.change(&permit, name, change).await??;
            let key = Some(key.clone());
            connections.rotate_secret(&permit, name, key).await??;
            connections.retire_previous_secret(&permit, name).await??;
        } else {
            let new = NewConnection {
                name: name.to_owned(),
                kind: ConnectionKind::NanoMdm,
                base_url,
                path_prefix: String::new(),
                username: mdm.flavour().user().to_owned(),
                api_key,
                hook_auth: HookAuth::Hmac,
                hmac_secret: Some(key.clone()),
                unlock_via: UnlockVia::Own,
                max_rate,
            };
            connections.add(&permit, new).await??;
        }
        Ok(key)
    }

    /// Keeps a push certificate that the fake Apple gave out.
    pub(crate) async fn certify(&self, certificate: &SimCertificate) -> Result<(), Broken> {
        let pem = certificate.bundle_pem();
        let read = PushCertificate::load(pem.as_bytes(), None, None)?;
        let new = NewPushCertificate {
            topic: read.topic().to_owned(),
            fingerprint: read.fingerprint().to_owned(),
            subject: read.subject().to_owned(),
            not_before: read.not_before(),
            not_after: read.not_after(),
            pem: read.to_sealed_pem(),
        };
        let permit = self.permit(read.topic()).await?;
        self.escrow.push_certificates().add(&permit, new).await?;
        Ok(())
    }

    /// Gets a server token as an organisation does, and keeps it under this name: the portal of the fake makes a file for the
    /// certificate of a key, which opens it.
    pub(crate) async fn enrol(
        &self,
        name: &str,
        dep: &Dep,
        token: &DepToken,
    ) -> Result<(), Broken> {
        let permit = self.permit::<Connections>(name).await?;
        let tokens = self.escrow.server_tokens();
        let (id, key) = match tokens.open_keys(&permit).await?.into_iter().next() {
            Some(kept) => {
                let certificate = Some(kept.certificate.as_bytes());
                let key = TokenKey::from_pem(kept.private_key.as_bytes(), certificate)?;
                (kept.id, key)
            }
            None => {
                let key = TokenKey::generate(lifecycle::clock().now())?;
                let certificate = certificate_of(&key).to_owned();
                let private_key = key.private_key_pem();
                let kept = tokens.add_key(&permit, certificate, private_key).await?;
                (kept.id, key)
            }
        };
        let file = dep.token_file(token, certificate_of(&key));
        let token = ServerToken::open(&file, &key)?;
        let access = Access::Apple {
            json: token.to_sealed_json(),
            expires_at: token.access_token_expiry(),
            key: Some(id),
        };
        let name = name.to_owned();
        tokens.put(&permit, NewServerToken { name, access }).await?;
        Ok(())
    }

    /// Keeps an API account for the fake of Apple's Business and School Manager API.
    pub(crate) async fn set_business_api(&self, account: &SimAccount) -> Result<(), Broken> {
        let key = SigningKey::from_pem(account.private_key_pem.as_bytes())?;
        let private_key = key.to_sealed_pem();
        let account = ApiAccount::new(&account.client_id, &account.key_id, key)?;
        let new = NewBusinessApi {
            client_id: account.client_id().to_owned(),
            key_id: account.key_id().to_owned(),
            private_key,
        };
        let permit = self.permit("business api").await?;
        self.escrow.business_apis().put(&permit, new).await?;
        Ok(())
    }
}

fn certificate_of(key: &TokenKey) -> &str {
    key.certificate_pem()
        .expect("a key that was made here, or kept with its certificate, has one")
}
