//! The sandbox: the server as in production, between fakes of Apple, of an MDM and of devices that live.
//!
//! The code paths are the production ones: webhooks and commands over HTTP, unlocks over mutual TLS. Only the far ends
//! are fakes, which forget everything when the sandbox ends; the data folder stays.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::sim::Webhook;
use ::sim::world::{Story, World, WorldOptions};
use apple::push_certificate::PushCertificate;
use apple::transport::ExtraAuthorities;
use data_encoding::HEXLOWER;
use escrow::connections::{ConnectionChange, ConnectionKind, HookAuth, NewConnection, UnlockVia};
use escrow::meta::DataKind;
use escrow::organisations::Created;
use escrow::permit::{
    Actor, Admin, Connections, OrganisationId, Permissions, Permit, Read, Right, Scope,
};
use escrow::principals::{NewToken, SecretText};
use escrow::push_certificates::NewPushCertificate;
use escrow::{Escrow, Opening};
use seal::{KeyEncryptionKey, Random};
use server::Settings;
use zeroize::Zeroizing;

use super::*;

const FOLDER: &str = "lockwarden-sandbox";
const PORT: u16 = 8080;
const DEVICES: u32 = 25;
const ORGANISATION: &str = "Sandbox School";
const CONNECTION: &str = "sandbox";
const OPERATOR: &str = "sandbox operator";
/// Not secret: whoever has the folder has this key too.
const KEY_FILE: &str = "sandbox.key";
const TOKEN_FILE: &str = "operator.token";
/// Devices look for work more often than real ones, for people who wait.
const POLL_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(args: ServeArgs, voice: Voice) -> Outcome {
    let mut signals = Signals::new()?;
    telemetry::log(telemetry::LogFormat::Text, "warn")
        .map_err(|error| Failure::new(error.to_string()))?;
    machine::keep_memory_private()?;
    let folder = args.data.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    let listen = args
        .listen
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let escrow = open(&folder).await?;
    let devices = args.devices.unwrap_or(DEVICES);
    let stage = match build(&escrow, listen, devices).await {
        Ok(stage) => stage,
        Err(failure) => {
            escrow.close().await;
            return Err(failure);
        }
    };
    let Stage {
        world,
        running,
        token,
    } = stage;
    let token_file = folder.join(TOKEN_FILE);
    private_file::replace(&token_file, token.expose())?;
    let serials = world.serials();
    let ready = Ready {
        url: running.url(),
        token: Some(token.expose()),
        devices: Some(&serials),
    };
    write_ready(args.ready_file.as_deref(), &ready)?;
    welcome(&world, running.url(), token.expose(), &token_file, voice)?;
    let outcome = until_the_end(running, &mut signals, voice).await;
    world.stop().await;
    outcome
}

async fn open(folder: &Path) -> Result<Escrow, Failure> {
    let status = Escrow::status(folder).await;
    let kind = status.ok().flatten().map(|status| status.kind);
    if kind == Some(DataKind::Production) {
        return Err(Failure::new(format!(
            "{} is a production data folder: a sandbox never touches one",
            folder.display()
        ))
        .hint("give the sandbox a folder of its own with --data"));
    }
    let cannot = |error: std::io::Error| {
        Failure::new(format!("{} cannot be made: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(cannot)?;
    let key_file = folder.join(KEY_FILE);
    let key = if key_file.exists() {
        local::read_key(&key_file)?
    } else {
        let key = KeyEncryptionKey::generate(&machine::random());
        private_file::create(&key_file)?.write_line(&key.to_file_text())?;
        Arc::new(key)
    };
    Escrow::open(Opening {
        folder,
        kind: DataKind::Sandbox,
        key,
        recovery: None,
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))
}

/// All of it, running.
struct Stage {
    world: World,
    running: Running,
    token: SecretText,
}

async fn build(escrow: &Escrow, listen: SocketAddr, devices: u32) -> Result<Stage, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::new(format!("the sandbox: {error}"));
    let api_key = Zeroizing::new(secret(&*machine::random()));
    let world = World::start(WorldOptions {
        seed: 1,
        devices: devices as usize,
        api_key: api_key.to_string(),
        poll_every: POLL_EVERY,
        ..WorldOptions::default()
    })
    .await
    .map_err(|error| broken(&error))?;
    let mut settings = Settings {
        sandbox: true,
        ..Settings::new(listen)
    };
    settings.apple.origin = world
        .apple()
        .url()
        .parse()
        .map_err(|error| broken(&error))?;
    settings.apple.authorities = ExtraAuthorities::from_pem(world.apple().ca_pem().as_bytes())
        .map_err(|error| broken(&error))?;
    let owner = Owner::new(escrow).await.map_err(|error| broken(&error))?;
    let hook_key = owner
        .connect(&world, api_key)
        .await
        .map_err(|error| broken(&error))?;
    owner
        .certify(&world)
        .await
        .map_err(|error| broken(&error))?;
    let token = owner.token().await.map_err(|error| broken(&error))?;
    let running = server::lifecycle::start(Setup {
        escrow: escrow.clone(),
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
        settings,
    })
    .await
    .map_err(|error| broken(&error))?;
    let hook = format!("{}/v1/hooks/{CONNECTION}", running.url());
    world.set_webhook(Some(Webhook::new(hook, Some(hook_key.as_bytes()))));
    world.lively();
    Ok(Stage {
        world,
        running,
        token,
    })
}

/// 256 random bits as text.
fn secret(random: &dyn Random) -> String {
    let mut bytes = Zeroizing::new([0; 32]);
    random.fill(bytes.as_mut_slice());
    HEXLOWER.encode(bytes.as_slice())
}

/// Who sets the sandbox up, as an administrator does in production.
struct Owner<'a> {
    escrow: &'a Escrow,
    actor: Actor,
    organisation: OrganisationId,
}

impl<'a> Owner<'a> {
    async fn new(escrow: &'a Escrow) -> escrow::Result<Self> {
        let actor = Actor::system("sandbox", Permissions::all());
        let organisations = escrow.organisations();
        let organisation = match organisations.create(&actor, ORGANISATION).await? {
            Created::New(organisation) => organisation.id,
            Created::NameTaken => {
                let found = organisations.find(&actor, ORGANISATION).await?;
                found
                    .expect("a name that is taken is somebody's, and organisations are not deleted")
                    .id
            }
        };
        Ok(Self {
            escrow,
            actor,
            organisation,
        })
    }

    async fn permit<P: Right>(&self, subject: &str) -> escrow::Result<Permit<P>> {
        self.escrow
            .authorise(&self.actor, &self.organisation, subject)
            .await
    }

    /// The connection to the fake MDM, which is another one at every start. Gives the key that its webhooks are signed with.
    async fn connect(
        &self,
        world: &World,
        api_key: Zeroizing<String>,
    ) -> Result<Zeroizing<String>, Box<dyn std::error::Error>> {
        let permit = self.permit::<Connections>(CONNECTION).await?;
        let key = Zeroizing::new(secret(&*machine::random()));
        let connections = self.escrow.connections();
        let base_url = world.mdm().api_url();
        let known = connections
            .get(&self.permit::<Read>(CONNECTION).await?, CONNECTION)
            .await?;
        if known.is_some() {
            let change = ConnectionChange {
                base_url: Some(base_url),
                username: None,
                api_key: Some(api_key),
                unlock_via: None,
            };
            connections.change(&permit, CONNECTION, change).await??;
            connections
                .rotate_secret(&permit, CONNECTION, Some(key.clone()))
                .await??;
            connections
                .retire_previous_secret(&permit, CONNECTION)
                .await??;
            return Ok(key);
        }
        let new = NewConnection {
            name: CONNECTION.to_owned(),
            kind: ConnectionKind::NanoMdm,
            base_url,
            path_prefix: String::new(),
            username: world.mdm().flavour().user().to_owned(),
            api_key,
            hook_auth: HookAuth::Hmac,
            hmac_secret: Some(key.clone()),
            unlock_via: UnlockVia::Own,
            max_rate: None,
        };
        connections.add(&permit, new).await??;
        Ok(key)
    }

    /// The push certificate that the fake Apple knows the organisation by.
    async fn certify(&self, world: &World) -> Result<(), Box<dyn std::error::Error>> {
        let pem = world.push_certificate().bundle_pem();
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

    /// A token for the person who plays; those of earlier starts end.
    async fn token(&self) -> escrow::Result<SecretText> {
        let permit = self.permit::<Admin>("tokens").await?;
        let principals = self.escrow.principals();
        for old in principals.list_tokens(&permit).await? {
            if old.name == OPERATOR && old.revoked_at.is_none() {
                principals.revoke_token(&permit, &old.id).await?;
            }
        }
        let everything = Permissions::SCOPES
            .iter()
            .filter_map(|scope| Permissions::of_scope(scope))
            .fold(Permissions::NONE, Permissions::and);
        let new = NewToken {
            name: OPERATOR.to_owned(),
            scope: Scope::All,
            permissions: everything,
            expires_at: None,
        };
        Ok(principals.create_token(&permit, new).await?.1)
    }
}

fn welcome(
    world: &World,
    url: &str,
    token: &str,
    token_file: &Path,
    voice: Voice,
) -> Result<(), Failure> {
    if voice.is_json() {
        let serials = world.serials();
        let ready = Ready {
            url,
            token: Some(token),
            devices: Some(&serials),
        };
        return voice.data(&ready, String::new);
    }
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "lockwarden".to_owned());
    let server = format!("--url {url} --token-file {}", token_file.display());
    let stories = world.stories();
    let serial = |story| {
        stories
            .get(&story)
            .map_or_else(|| world.serials().remove(0), |device| device.serial())
    };
    let locked = serial(Story::UserLocked);
    let mut lines = vec![
        "SANDBOX: fakes of Apple, of an MDM and of devices. Nothing reaches Apple.".to_owned(),
        String::new(),
        format!("address  {url}"),
        format!("token    {token}"),
        String::new(),
        "Three commands to try next, in another terminal:".to_owned(),
        format!("  {program} devices list {server}"),
        format!("  {program} reveal {locked} --reason \"trying it out\" {server}"),
        format!("  {program} unlock {locked} --reason \"trying it out\" --wait {server}"),
        String::new(),
        "Devices with a story, once they have told their codes:".to_owned(),
    ];
    for (story, tells) in [
        (Story::UserLocked, "locked by its user; its code opens it"),
        (
            Story::Erased,
            "erased while locked and enrolled again: a code of its history opens it",
        ),
        (
            Story::WrongFirst,
            "its newest code is wrong, the one before opens it",
        ),
        (
            Story::NobodyHasTheCode,
            "locked with a code that nobody has: all fail, and it is not called unlocked",
        ),
    ] {
        if let Some(device) = stories.get(&story) {
            lines.push(format!("  {}  {tells}", device.serial()));
        }
    }
    voice.line(&Zeroizing::new(lines.join("\n")))?;
    voice.talk("Interrupt it (Ctrl-C) to end it.");
    Ok(())
}
