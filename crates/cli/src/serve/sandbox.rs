//! The sandbox: the server as in production, between fakes of Apple, of an MDM and of devices that live.
//!
//! The code paths are the production ones: webhooks and commands over HTTP, unlocks over mutual TLS, locks with a server token
//! that came in a file of the portal's. Only the far ends are fakes, which forget everything when the sandbox ends; the data
//! folder stays.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::sim::Webhook;
use ::sim::world::{Story, World, WorldOptions};
use apple::transport::ExtraAuthorities;
use escrow::lock_statuses::StatusSettings;
use escrow::meta::DataKind;
use escrow::pace::Rate;
use escrow::people::PersonProblem;
use escrow::principals::SecretText;
use escrow::{Database, Escrow, Opening};
use seal::{KeyEncryptionKey, Password};
use server::Settings;
use zeroize::Zeroizing;

use super::*;
use crate::owner::{self, Broken, Owner};

const FOLDER: &str = "lockwarden-sandbox";
const PORT: u16 = 8080;
const DEVICES: u32 = 25;
const ORGANISATION: &str = "Sandbox School";
const CONNECTION: &str = "sandbox";
const SERVER_TOKEN: &str = "sandbox";
const OPERATOR: &str = "sandbox operator";
/// Who signs in to the console. The password is no secret: a sandbox listens on its own machine alone.
const LOGIN: &str = "admin";
const PASSWORD: &str = "sandbox sandbox";
/// Not secret: whoever has the folder has this key too.
const KEY_FILE: &str = "sandbox.key";
const TOKEN_FILE: &str = "operator.token";
/// Devices look for work more often than real ones, for people who wait.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// So do we for Apple's lists, and for its status of locks: the fakes bear it.
const LIST_EVERY: Duration = Duration::from_secs(30);
const STATUSES: StatusSettings = StatusSettings {
    settles_in: Duration::from_secs(60),
    sweep_every: Duration::from_secs(5 * 60),
};
const STATUS_PACE: Duration = Duration::from_millis(50);
/// Calls a second to the fake of Apple: many devices at once are done while one looks on.
const PACE: f64 = 50.0;
/// Unlocks an hour without another person: whoever plays alone has all devices at once.
const UNLOCKS_AN_HOUR: u32 = 100_000;

pub(super) async fn run(args: ServeArgs, voice: Voice) -> Outcome {
    let mut signals = Signals::new()?;
    telemetry::log(telemetry::LogFormat::Text, "warn")
        .map_err(|error| Failure::new(error.to_string()))?;
    machine::keep_memory_private()?;
    let folder = args.data.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    let listen = args
        .listen
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let escrow = open(&folder, local::database_in(args.database_file.as_deref())?).await?;
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
    let serials = world.serials();
    let ready = Ready {
        url: running.url(),
        token: Some(token.expose()),
        devices: Some(&serials),
    };
    let told = private_file::replace(&token_file, token.expose())
        .and_then(|()| write_ready(args.ready_file.as_deref(), &ready))
        .and_then(|()| welcome(&world, running.url(), token.expose(), &token_file, voice));
    if let Err(failure) = told {
        running.stop().await;
        return Err(failure);
    }
    let outcome = until_the_end(running, &mut signals, voice).await;
    world.stop().await;
    outcome
}

async fn open(folder: &Path, database: Database) -> Result<Escrow, Failure> {
    // Nothing is put into a folder that does not say what it is.
    let status = Escrow::status(folder, database.clone(), &*server::lifecycle::clock())
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    if status.is_some_and(|status| status.kind == DataKind::Production) {
        return Err(Failure::new(format!(
            "{} is a production data folder: a sandbox never touches one",
            folder.display()
        ))
        .hint("give the sandbox a folder of its own with --data"));
    }
    let cannot = |error: std::io::Error| {
        Failure::new(format!("{} cannot be made: {error}", folder.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(cannot)?;
    let key_file = folder.join(KEY_FILE);
    let key = if key_file.exists() {
        local::read_key(&key_file)?
    } else {
        let key = KeyEncryptionKey::generate(&machine::random());
        let mut file = private_file::create(&key_file)?;
        file.write_line(&key.to_file_text())?;
        file.keep();
        Arc::new(key)
    };
    Escrow::open(Opening {
        folder,
        database,
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
    let api_key = owner::secret();
    let world = World::start(WorldOptions {
        seed: 1,
        devices: devices as usize,
        api_key: api_key.to_string(),
        poll_every: POLL_EVERY,
        ..WorldOptions::default()
    })
    .await
    .map_err(|error| broken(&error))?;
    let mut settings = settings(listen, &world).map_err(|error| broken(&error))?;
    settings.connections = machine::connections();
    let owner = Owner::new(escrow, "sandbox", ORGANISATION)
        .await
        .map_err(|error| broken(&error))?;
    let hook_key = owner
        .connect(CONNECTION, world.mdm(), api_key, None)
        .await
        .map_err(|error| broken(&error))?;
    owner
        .certify(world.push_certificate())
        .await
        .map_err(|error| broken(&error))?;
    owner
        .enrol(SERVER_TOKEN, world.dep(), world.dep_token())
        .await
        .map_err(|error| broken(&error))?;
    owner
        .set_business_api(world.api_account())
        .await
        .map_err(|error| broken(&error))?;
    person(&owner).await.map_err(|error| broken(&error))?;
    let admin = owner.permit("organisation").await;
    let organisations = escrow.organisations();
    organisations
        .set_quotas(
            &admin.map_err(|error| broken(&error))?,
            None,
            Some(UNLOCKS_AN_HOUR),
        )
        .await
        .map_err(|error| broken(&error))?;
    let token = owner
        .token(OPERATOR)
        .await
        .map_err(|error| broken(&error))?;
    let running = server::lifecycle::start(Setup {
        escrow: escrow.clone(),
        clock: server::lifecycle::clock(),
        random: server::lifecycle::random(),
        settings,
    })
    .await
    .map_err(|error| not_started(&error, "`--listen 127.0.0.1:0` takes any free port"))?;
    let hook = format!("{}/v1/hooks/{CONNECTION}", running.url());
    world.set_webhook(Some(Webhook::new(hook, Some(hook_key.as_bytes()))));
    world.lively();
    Ok(Stage {
        world,
        running,
        token,
    })
}

/// Somebody who may sign in; from an earlier run perhaps.
async fn person(owner: &Owner<'_>) -> Result<(), Broken> {
    let password = Password::new(Zeroizing::new(PASSWORD.to_owned()))?;
    match owner.person(&LOGIN.parse()?, LOGIN, password).await {
        Err(error) if matches!(error.downcast_ref(), Some(PersonProblem::LoginTaken(_))) => Ok(()),
        done => done,
    }
}

/// The server as in production, with the world's fakes in Apple's place.
fn settings(listen: SocketAddr, world: &World) -> Result<Settings, Broken> {
    let mut settings = Settings {
        statuses: STATUSES,
        status_pace: STATUS_PACE,
        pace: Rate::per_second(PACE),
        list_every: LIST_EVERY,
        sandbox: true,
        ..Settings::new(listen)
    };
    settings.sign_in.second_factor = false;
    let authorities = ExtraAuthorities::from_pem(world.apple().ca_pem().as_bytes())?;
    settings.apple.origin = world.apple().url().parse()?;
    settings.apple.authorities = authorities.clone();
    settings.enrolment.origin = world.dep().url().parse()?;
    settings.enrolment.authorities = authorities.clone();
    let business = world.business_manager();
    settings.business.business_origin = business.api_url().parse()?;
    settings.business.school_origin = business.api_url().parse()?;
    settings.business.token_url = business.token_url().parse()?;
    settings.business.authorities = authorities;
    Ok(settings)
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
        format!("console  {url} in a browser, as {LOGIN} with the password \"{PASSWORD}\""),
        String::new(),
        "Commands to try next, in another terminal:".to_owned(),
        format!("  {program} devices list {server}"),
        format!("  {program} reveal {locked} --reason \"trying it out\" {server}"),
        format!("  {program} unlock {locked} --reason \"trying it out\" --wait {server}"),
    ];
    if let Some(lost) = stories.get(&Story::Lost) {
        let lost = lost.serial();
        lines.push(format!(
            "  {program} lock {lost} --reason \"trying it out\" --wait {server}"
        ));
    }
    lines.extend([
        String::new(),
        "Devices with a story, once they have told their codes:".to_owned(),
    ]);
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
        (
            Story::Lost,
            "an iPad that nobody locked; once you lock it, its finder erases it, and the code of your lock opens it",
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
