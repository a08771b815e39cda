//! What can be wrong with an installation, looked at beside the running server: one finding a line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use activation_lock::explain;
use activation_lock::time::{DAY, Timestamp};
use apple::dep::token::TokenExpiry;
use apple::push_certificate::{ExpiryLevel, PushCertificate};
use escrow::approvals::Action;
use escrow::clock::Clock;
use escrow::connections::{ConnectionView, UnlockVia};
use escrow::meta::{DataKind, Status};
use escrow::operations::Kind;
use escrow::organisations::Organisation;
use escrow::permit::{Actor, Permission, Permissions, Read};
use escrow::push_certificates::PushCertificateView;
use escrow::{Database, Escrow, LiveSettings, Opening, PostgresAddress};
use seal::{KeyEncryptionKey, Random};
use serde::Serialize;

use crate::config::Config;
use crate::connectors::Client;
use crate::http::api::dep_tokens::to_do;
use crate::http::api::moment;
use crate::{Settings, tls};

/// A list or an account that is left alone for longer is worth a look.
const A_WHILE: Duration = Duration::from_secs(60 * 60);

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should do something.
    Warn,
    /// It does not work.
    Fail,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a stable word.
    pub what: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// In words, without secrets.
    pub says: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(what: &'static str, says: impl Into<String>) -> Self {
        Self {
            what,
            verdict: Verdict::Ok,
            says: says.into(),
            hint: None,
        }
    }

    /// It works, and somebody should do something.
    #[must_use]
    pub fn warn(what: &'static str, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            hint: Some(hint.into()),
            ..Self::ok(what, says)
        }
    }

    /// It does not work.
    #[must_use]
    pub fn fail(what: &'static str, says: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            hint: Some(hint.into()),
            ..Self::ok(what, says)
        }
    }
}

/// Looks at everything behind a configuration. Changes nothing, and sends no code anywhere.
pub async fn examine(
    config: &Config,
    key: Option<Arc<KeyEncryptionKey>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(error) => {
            found.push(Finding::fail(
                "configuration",
                error.to_string(),
                "correct the configuration",
            ));
            return found;
        }
    };
    found.push(Finding::ok("configuration", "it can be used"));
    listener(&settings, &mut found);
    let folder = &config.data.folder;
    let database = match config.database() {
        Ok(database) => database,
        Err(error) => {
            found.push(Finding::fail(
                "database",
                error.to_string(),
                "correct the configuration",
            ));
            return found;
        }
    };
    if let Database::Postgres(address) = &database {
        found.extend(unproven(address));
    }
    let is_on_server = matches!(database, Database::Postgres(_));
    let place = database.place(folder);
    let status = match Escrow::status(folder, database.clone(), &*clock).await {
        Ok(Some(status)) => status,
        Ok(None) => {
            found.push(Finding::fail(
                "database",
                format!("there is no vault in {place}"),
                "`lockwarden init` makes one; [data] folder names another",
            ));
            return found;
        }
        Err(error) => {
            found.push(Finding::fail(
                "database",
                error.to_string(),
                "restore it from a backup if it is damaged",
            ));
            return found;
        }
    };
    schema(folder, &place, &status, &mut found);
    found.push(time(&status, clock.now()));
    let Some(key) = key else { return found };
    if status.kind != DataKind::Production || !status.is_compatible() || !status.pending.is_empty()
    {
        return found;
    }
    let now = clock.now();
    let opening = Opening {
        folder,
        database,
        kind: DataKind::Production,
        key,
        recovery: None,
        clock,
        random,
    };
    match Escrow::look(opening).await {
        Ok(escrow) => {
            found.push(Finding::ok("key", "the key file opens the vault"));
            recovery(&status, &mut found);
            let examined = async {
                if is_on_server {
                    keeping(&escrow, &settings, &mut found).await?;
                }
                inside(&escrow, &settings, now, &mut found).await
            };
            if let Err(error) = examined.await {
                found.push(Finding::fail(
                    "database",
                    error.to_string(),
                    "look at the server's log",
                ));
            }
            escrow.close().await;
        }
        Err(error) => found.push(Finding::fail(
            "key",
            error.to_string(),
            "[keys] key_file names the running key",
        )),
    }
    found
}

fn listener(settings: &Settings, found: &mut Vec<Finding>) {
    found.push(match &settings.tls {
        Some(files) => match tls::check(files) {
            Ok(()) => Finding::ok("listener", format!("TLS on {}", settings.listen)),
            Err(error) => Finding::fail(
                "listener",
                error.to_string(),
                "[listen] certificate_file and key_file name PEM files that belong together",
            ),
        },
        None if settings.listen.ip().is_loopback() => Finding::ok(
            "listener",
            format!("{} without TLS, for this machine alone", settings.listen),
        ),
        None if settings.trusted_proxy => Finding::ok(
            "listener",
            format!("{} without TLS, behind a proxy of yours", settings.listen),
        ),
        None => Finding::fail(
            "listener",
            format!(
                "{} can be reached from other machines, and no TLS is configured",
                settings.listen
            ),
            "give certificate_file and key_file under [listen], or listen on 127.0.0.1",
        ),
    });
}

fn unproven(address: &PostgresAddress) -> Option<Finding> {
    let unproven = address.unproven();
    (!unproven.is_empty()).then(|| {
        Finding::warn(
            "database",
            format!(
                "{} is reached over a network and need not prove who it is",
                unproven.join(", ")
            ),
            "give the address sslmode=verify-full, and sslrootcert where its authority is your own",
        )
    })
}

async fn keeping(
    escrow: &Escrow,
    settings: &Settings,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    let live = escrow.live_settings().await?;
    let LiveSettings::Postgres { version, .. } = &live else {
        return Ok(());
    };
    let weaknesses = live.weaknesses();
    if weaknesses.is_empty() {
        let says = format!("PostgreSQL {version} keeps what it acknowledges");
        found.push(Finding::ok("durability", says));
    }
    for weakness in weaknesses {
        let advice = format!(
            "to put up with it, allow = [\"{}\"] under [database]",
            weakness.as_str()
        );
        found.push(if settings.allowed_weaknesses.contains(&weakness) {
            Finding::warn("durability", weakness.explain(), "it is allowed by name")
        } else {
            Finding::fail("durability", weakness.explain(), advice)
        });
    }
    Ok(())
}

fn schema(folder: &Path, place: &str, status: &Status, found: &mut Vec<Finding>) {
    let schema = format!("schema {} in {place}", status.schema_version);
    found.push(if status.kind != DataKind::Production {
        Finding::fail(
            "database",
            format!("{place} is a {} vault", status.kind),
            "name the production data folder under [data]",
        )
    } else if !status.is_compatible() {
        Finding::fail(
            "database",
            format!("{schema} needs a newer program"),
            "use the lockwarden that made it, or a newer one",
        )
    } else if !status.pending.is_empty() {
        Finding::warn(
            "database",
            format!("{schema}; {} changes wait", status.pending.len()),
            "`lockwarden db migrate` applies them; `serve` does so too",
        )
    } else {
        Finding::ok("database", schema)
    });
    if is_open_to_others(folder) {
        found.push(Finding::warn(
            "permissions",
            format!("others than the owner may look into {}", folder.display()),
            format!("chmod 700 {}", folder.display()),
        ));
    }
}

fn is_open_to_others(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

fn time(status: &Status, now: Timestamp) -> Finding {
    if now < status.created_at {
        Finding::fail(
            "clock",
            "this machine's clock is behind the moment at which the vault was made",
            "set the clock, by NTP: waits, deadlines and certificates go by it",
        )
    } else if let Some(behind) = behind(status, now) {
        Finding::fail(
            "clock",
            format!(
                "this machine's clock is {} minutes behind what was last put on record",
                behind.as_secs() / 60
            ),
            "set the clock, by NTP: certificates and signatures are judged by it. What is put on record goes on from the later time",
        )
    } else {
        Finding::ok("clock", "it is not behind the vault")
    }
}

/// How far a clock is behind the last word of a process on the vault, when that is more than clocks differ.
fn behind(status: &Status, now: Timestamp) -> Option<Duration> {
    let last = status.replicas.iter().map(|one| one.seen_at).max()?;
    let behind = last.since(now);
    (behind >= Duration::from_secs(60)).then_some(behind)
}

fn recovery(status: &Status, found: &mut Vec<Finding>) {
    found.push(match (&status.recovery_public, status.recovery_opened_at) {
        (None, _) => Finding::fail(
            "recovery key",
            "the vault has no recovery key: if the key file is lost, every code is",
            "make a new vault with `lockwarden init`",
        ),
        (Some(_), None) => Finding::warn(
            "recovery key",
            "nobody has shown yet that the recovery key opens this vault",
            "stop the server once and run `lockwarden key recovery-check`",
        ),
        (Some(_), Some(_)) => Finding::ok("recovery key", "it has been shown to open this vault"),
    });
}

/// What only the open vault tells.
async fn inside(
    escrow: &Escrow,
    settings: &Settings,
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    let actor = Actor::system("doctor", Permissions::of(&[Permission::Read]));
    let organisations = escrow.organisations().list(&actor).await?;
    if organisations.is_empty() {
        found.push(Finding::warn(
            "organisation",
            "there is none yet",
            "`lockwarden init` makes the first one",
        ));
    }
    let mut connections = Vec::new();
    for organisation in &organisations {
        let permit = escrow
            .authorise::<Read>(&actor, &organisation.id, "connections")
            .await?;
        connections.extend(escrow.connections().list(&permit).await?);
    }
    people(escrow, &actor, &organisations, found).await?;
    single_sign_on(settings, &organisations, found);
    certificates(escrow, &connections, now, found).await?;
    journal(escrow, found).await?;
    server_tokens(escrow, now, found).await?;
    business_apis(escrow, now, found).await?;
    record(escrow, settings, now, found).await?;
    waiting(escrow, found).await?;
    if connections.is_empty() {
        found.push(Finding::warn(
            "mdm",
            "no MDM is connected: nothing is heard of any device",
            "`lockwarden mdm add` connects one",
        ));
        return Ok(());
    }
    let client = match Client::new(&settings.mdm_authorities, settings.mdm_timeout) {
        Ok(client) => client,
        Err(error) => {
            found.push(Finding::fail(
                "mdm",
                error.to_string(),
                "look at [mdm] ca_file",
            ));
            return Ok(());
        }
    };
    for view in connections {
        let Some(connection) = escrow.connections().open(&view.id).await? else {
            continue;
        };
        found.push(match client.test(&connection).await {
            Ok(says) => Finding::ok("mdm", format!("{}: {says}", view.name)),
            Err(says) => Finding::fail(
                "mdm",
                format!("{}: {says}", view.name),
                "is it running at that address, and is the key its own?",
            ),
        });
    }
    Ok(())
}

/// What unlocks and locks wait for.
async fn waiting(escrow: &Escrow, found: &mut Vec<Finding>) -> escrow::Result<()> {
    for one in escrow.operations().waiting().await? {
        let (what, noun, explained) = match one.kind {
            Kind::Unlock => (
                "unlocks",
                "unlock",
                one.why.parse().ok().map(explain::waiting),
            ),
            Kind::Lock => (
                "locks",
                "lock",
                one.why.parse().ok().map(explain::lock::waiting),
            ),
        };
        let Some(explained) = explained else { continue };
        let said = one
            .diagnostic
            .map_or_else(String::new, |why| format!(" ({why})"));
        let s = if one.count == 1 { " waits" } else { "s wait" };
        found.push(Finding::warn(
            what,
            format!("{} {noun}{s}: {}{said}", one.count, explained.happened),
            explained.to_do,
        ));
    }
    Ok(())
}

/// Whether codes can be seen by one person alone where there are two, and what was done in an emergency.
async fn people(
    escrow: &Escrow,
    actor: &Actor,
    organisations: &[Organisation],
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    let count = escrow.people().count().await?;
    found.push(match count {
        0 => Finding::warn(
            "people",
            "nobody can sign in: everything is done by tokens, and the record names no person",
            "`lockwarden people invite` invites somebody",
        ),
        1 => Finding::ok("people", "one person can sign in"),
        _ => Finding::ok("people", format!("{count} people can sign in")),
    });
    for (name, since, why) in escrow.notices().failing().await? {
        found.push(Finding::warn(
            "notices",
            format!(
                "{name}: nothing is taken there since {}: {why}",
                moment(since)
            ),
            "`lockwarden notices test` tries it again; nobody is told through it until then",
        ));
    }
    for organisation in organisations {
        let policies = escrow.policies().list(&organisation.id).await?;
        let alone = policies
            .iter()
            .any(|(action, policy)| *action == Action::Reveal && policy.people == 0);
        if count > 1 && alone {
            found.push(Finding::warn(
                "approvals",
                format!("{}: one person alone can see codes", organisation.name),
                "`lockwarden policies set reveal --people 1` asks another one first; docs/APPROVALS.md",
            ));
        }
        let permit = escrow
            .authorise::<Read>(actor, &organisation.id, "emergencies")
            .await?;
        let emergencies = escrow.emergencies().list(&permit, false).await?;
        if !emergencies.is_empty() {
            found.push(Finding::warn(
                "emergencies",
                format!(
                    "{}: nobody has acknowledged {} of them",
                    organisation.name,
                    emergencies.len()
                ),
                "`lockwarden emergencies list` shows them; another person acknowledges each",
            ));
        }
    }
    Ok(())
}

/// Whether the groups of a provider give roles in organisations that there are.
fn single_sign_on(settings: &Settings, organisations: &[Organisation], found: &mut Vec<Finding>) {
    let Some(provider) = &settings.single_sign_on else {
        return;
    };
    let missing: Vec<&str> = provider
        .groups
        .iter()
        .filter_map(|group| group.organisation.as_deref())
        .filter(|name| !organisations.iter().any(|one| one.name == *name))
        .collect();
    found.push(if missing.is_empty() {
        Finding::ok("single_sign_on", format!("by {}", provider.issuer))
    } else {
        Finding::fail(
            "single_sign_on",
            format!("there is no organisation called {}", missing.join(", ")),
            "correct [[single_sign_on.groups]]; until then these groups give nothing",
        )
    });
}

/// So long without a checkpoint means that no server sends any.
const SILENT: Duration = Duration::from_secs(5 * 60);

/// Whether the audit record gets outside, where whoever edits the database cannot cut off its end unseen.
async fn record(
    escrow: &Escrow,
    settings: &Settings,
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    let outside = &settings.outside;
    let checkpoints = outside.of_checkpoints();
    if checkpoints.is_empty() {
        found.push(Finding::warn(
            "audit",
            "no checkpoint of the audit record leaves this machine: whoever edits the database can cut off its end unseen",
            "give checkpoint_file, checkpoint_webhook or syslog under [audit]",
        ));
    }
    let known = escrow.audit().outlets().await?;
    for outlet in checkpoints.iter().chain(&outside.of_rows()) {
        let known = known.iter().find(|one| one.name == outlet.as_str());
        let is_of_checkpoints = checkpoints.contains(outlet);
        found.push(match known {
            Some(one) if one.failing_since.is_some() => Finding::fail(
                "audit",
                format!(
                    "the {outlet} takes nothing: {}",
                    one.failure.as_deref().unwrap_or("why is not known")
                ),
                "look at [audit]; the server goes on without it, and tries again",
            ),
            Some(one)
                if !is_of_checkpoints || one.sent_at.is_some_and(|at| now.since(at) < SILENT) =>
            {
                Finding::ok(
                    "audit",
                    format!(
                        "the {outlet} has the record up to position {}",
                        one.position
                    ),
                )
            }
            _ => Finding::warn(
                "audit",
                format!("the {outlet} was given nothing in the last minutes"),
                "is the server running, with this configuration?",
            ),
        });
    }
    Ok(())
}

async fn certificates(
    escrow: &Escrow,
    connections: &[ConnectionView],
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    let current = escrow.push_certificates().all_current().await?;
    let delegated = connections
        .iter()
        .any(|connection| connection.unlock_via == UnlockVia::Delegated);
    if current.is_empty() && !delegated {
        found.push(Finding::warn(
            "push certificate",
            "there is none, and no MDM calls Apple for us: nothing can be unlocked",
            "`lockwarden push-certificate add` keeps one; or let an MDM call Apple: `lockwarden mdm add --unlock-via delegated`",
        ));
    }
    for view in current {
        found.push(certificate(escrow, &view, now).await?);
    }
    Ok(())
}

async fn certificate(
    escrow: &Escrow,
    view: &PushCertificateView,
    now: Timestamp,
) -> escrow::Result<Finding> {
    const WHAT: &str = "push certificate";
    const RENEW: &str = "renew it at Apple's push certificates portal under the same Apple Account, then `lockwarden push-certificate add`";
    let open = escrow
        .push_certificates()
        .open_by_id(&view.organisation, &view.id)
        .await?;
    let Some(open) = open else {
        return Ok(Finding::ok(WHAT, "it was removed a moment ago"));
    };
    let read = match PushCertificate::load(open.pem.as_bytes(), None, None) {
        Ok(read) => read,
        Err(error) => {
            return Ok(Finding::fail(
                WHAT,
                format!("{}: {error}", view.topic),
                "`lockwarden push-certificate add` keeps another",
            ));
        }
    };
    let days = read.days_left(now);
    Ok(match read.expiry_level(now) {
        ExpiryLevel::Fine => Finding::ok(WHAT, format!("{}: {days} days left", view.topic)),
        ExpiryLevel::Expiring => {
            Finding::warn(WHAT, format!("{}: {days} days left", view.topic), RENEW)
        }
        ExpiryLevel::Expired => Finding::fail(WHAT, format!("{}: it has ended", view.topic), RENEW),
    })
}

/// The lock journal, which holds the code of every lock a second time (R4).
async fn journal(escrow: &Escrow, found: &mut Vec<Finding>) -> escrow::Result<()> {
    const WHAT: &str = "lock journal";
    let state = escrow.locks().journal().await?;
    found.push(if state.unreadable > 0 {
        Finding::fail(
            WHAT,
            format!("{} of its lines do not open", state.unreadable),
            "keep the file as it is; it was damaged or changed, or the key of those lines is lost: restore it from a backup",
        )
    } else if state.missing > 0 {
        Finding::warn(
            WHAT,
            format!("the database does not know {} of its calls", state.missing),
            "it was rolled back: start the server, which puts them back where their organisation is known",
        )
    } else {
        Finding::ok(WHAT, format!("{} calls, all known to the database", state.calls))
    });
    Ok(())
}

async fn server_tokens(
    escrow: &Escrow,
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    const WHAT: &str = "server token";
    const RENEW: &str = "somebody who manages servers in Apple Business Manager or Apple School Manager downloads a new token; `lockwarden dep token import` keeps it";
    for token in escrow.server_tokens().all().await? {
        if let Some((problem, _)) = token.problem {
            let says = format!("{}: Apple says {}", token.name, problem.as_str());
            found.push(Finding::fail(WHAT, says, to_do(problem, token.kind)));
            continue;
        }
        if let Some(until) = token
            .list_retry_at
            .filter(|until| until.since(now) > A_WHILE)
        {
            found.push(Finding::warn(
                WHAT,
                format!("{}: its list is left alone for {} minutes", token.name, until.since(now).as_secs() / 60),
                "Apple, or what answers in its place, asked for it; `lockwarden dep sync` reads it all the same",
            ));
        }
        let Some(end) = token.expires_at else {
            let says = format!("{}: a NanoDEP has it", token.name);
            found.push(Finding::ok(WHAT, says));
            continue;
        };
        let says = format!(
            "{}: {} days left",
            token.name,
            end.since(now).as_secs() / DAY.as_secs()
        );
        found.push(match TokenExpiry::of(end, now) {
            TokenExpiry::Fine => Finding::ok(WHAT, says),
            TokenExpiry::Expiring | TokenExpiry::Urgent => Finding::warn(WHAT, says, RENEW),
            TokenExpiry::Expired => {
                Finding::fail(WHAT, format!("{}: it has ended", token.name), RENEW)
            }
        });
    }
    Ok(())
}

async fn business_apis(
    escrow: &Escrow,
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> escrow::Result<()> {
    for account in escrow.business_apis().all().await? {
        let client = &account.client_id;
        found.push(match account.problem {
            Some((problem, _)) => Finding::fail(
                "business api",
                format!("{client}: {problem}"),
                "`lockwarden business-api test` tries it again",
            ),
            None => match account.retry_at.filter(|until| until.since(now) > A_WHILE) {
                Some(until) => Finding::warn(
                    "business api",
                    format!("{client}: it is left alone for {} minutes", until.since(now).as_secs() / 60),
                    "Apple, or what answers in its place, asked for it; `lockwarden business-api test` tries it all the same",
                ),
                None => Finding::ok("business api", format!("{client}: no problem is known")),
            },
        });
    }
    Ok(())
}
