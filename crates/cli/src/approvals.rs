//! `lockwarden approvals`, `policies` and `emergencies`: what takes other people.

use clap::{Args, Subcommand};
use escrow::Escrow;
use escrow::approvals::{Action, Policy};
use escrow::permit::{Actor, Admin, Permissions, Permit};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::local::{self, ConfigArgs};
use crate::show;
use crate::voice::{DONE, Failure, Outcome, Voice};

/// Show and decide what people ask others for
#[derive(Args)]
pub(crate) struct ApprovalsArgs {
    #[command(subcommand)]
    command: ApprovalsCommand,
}

#[derive(Subcommand)]
enum ApprovalsCommand {
    /// List those that wait for a decision
    List(ListArgs),
    /// Show one, with who said what
    Show(OneArgs),
    /// Say yes to what another person asks for
    Approve(DecideArgs),
    /// Say no: that ends it
    Refuse(DecideArgs),
    /// Take back what you asked for
    Cancel(OneArgs),
}

#[derive(Args)]
struct ListArgs {
    /// Those that you asked for, however they stand
    #[arg(long, conflicts_with = "all")]
    own: bool,
    /// All of them
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct OneArgs {
    /// Its identifier
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct DecideArgs {
    /// Its identifier
    id: String,
    /// What you have to say to it: kept on record
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show and set what takes other people
#[derive(Args)]
pub(crate) struct PoliciesArgs {
    #[command(subcommand)]
    command: PoliciesCommand,
}

#[derive(Subcommand)]
enum PoliciesCommand {
    /// List the policies
    List(PlainArgs),
    /// Set one; making it easier takes the approval that it asks for so far
    Set(SetArgs),
    /// Have an action take nobody else, on this machine, when there is nobody left who could say yes
    ///
    /// The server must be stopped. It is on record, and others are told when the server runs again.
    Rescue(PolicyRescueArgs),
}

#[derive(Args)]
struct PolicyRescueArgs {
    /// What it is about
    #[arg(value_parser = ["reveal", "unlock", "lock", "export", "purge"])]
    action: String,
    /// The organisation, when there are several
    #[arg(long, value_name = "NAME")]
    organisation: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args)]
struct PlainArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct SetArgs {
    /// What it is about
    #[arg(value_parser = ["reveal", "unlock", "lock", "export", "purge"])]
    action: String,
    /// How many other people have to say yes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2))]
    people: u8,
    /// Who asks may be one of them
    #[arg(long)]
    self_approval: bool,
    /// How long a request can be decided [default: 168]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=720))]
    ask_within_hours: Option<u64>,
    /// How long what was approved can be done [default: 60]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(5..=1440))]
    use_within_minutes: Option<u64>,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show what was done in an emergency, without the approval that it needed
#[derive(Args)]
pub(crate) struct EmergenciesArgs {
    #[command(subcommand)]
    command: EmergenciesCommand,
}

#[derive(Subcommand)]
enum EmergenciesCommand {
    /// List those that nobody has acknowledged
    List(SeenArgs),
    /// Say, as another person, that you have seen it: it is off the list
    Acknowledge(OneArgs),
}

#[derive(Args)]
struct SeenArgs {
    /// Those that were acknowledged as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const APPROVALS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("STATE", "state"),
    ("ACTION", "action"),
    ("TARGETS", "targets"),
    ("BY", "requested_by"),
    ("REASON", "reason"),
    ("ASKED", "asked_at"),
    ("SAID", "votes"),
];

const POLICIES: &[(&str, &str)] = &[
    ("ACTION", "action"),
    ("PEOPLE", "people"),
    ("SELF-APPROVAL", "self_approval"),
    ("DECIDED WITHIN HOURS", "ask_within_hours"),
    ("USED WITHIN MINUTES", "use_within_minutes"),
];

const EMERGENCIES: &[(&str, &str)] = &[
    ("ID", "id"),
    ("AT", "at"),
    ("BY", "name"),
    ("ACTION", "action"),
    ("TARGETS", "targets"),
    ("REASON", "reason"),
    ("ACKNOWLEDGED", "acknowledged_by"),
];

/// Runs `approvals`.
pub(crate) async fn run(args: ApprovalsArgs, voice: Voice) -> Outcome {
    match args.command {
        ApprovalsCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let which = match (args.own, args.all) {
                (true, _) => Some("own"),
                (_, true) => Some("all"),
                _ => None,
            };
            listed(
                &api,
                Ask::get(&["approvals"]).with("which", which),
                APPROVALS,
                voice,
            )
            .await
        }
        ApprovalsCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            shown(&api, Ask::get(&["approvals", &args.id]), APPROVALS, voice).await
        }
        ApprovalsCommand::Approve(args) => decide(args, "approve", voice).await,
        ApprovalsCommand::Refuse(args) => decide(args, "refuse", voice).await,
        ApprovalsCommand::Cancel(args) => {
            let api = Api::new(&args.server, voice)?;
            api.ask(Ask::delete(&["approvals", &args.id])).await?;
            voice.done(
                "cancelled",
                &args.id,
                format!("approval {} is taken back", args.id),
            )
        }
    }
}

async fn decide(args: DecideArgs, word: &str, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let path = ["approvals", &args.id, word];
    let ask = Ask::post(&path).json(&json!({ "comment": args.comment }))?;
    shown(&api, ask, APPROVALS, voice).await
}

/// Runs `policies`.
pub(crate) async fn policies(args: PoliciesArgs, voice: Voice) -> Outcome {
    match args.command {
        PoliciesCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            listed(&api, Ask::get(&["approval-policies"]), POLICIES, voice).await
        }
        PoliciesCommand::Set(args) => {
            let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
            let wanted = json!({
                "people": args.people,
                "self_approval": args.self_approval,
                "ask_within_hours": args.ask_within_hours,
                "use_within_minutes": args.use_within_minutes,
            });
            let path = ["approval-policies", &args.action];
            let ask = Ask::new(Method::PUT, &path).json(&wanted)?;
            listed(&api, ask, POLICIES, voice).await
        }
        PoliciesCommand::Rescue(args) => {
            let config = args.config.read()?;
            let escrow = local::open(&config, voice).await?;
            let rescued = loosen_here(&escrow, &args).await;
            escrow.close().await;
            let name = rescued?;
            voice.done(
                "rescued",
                &args.action,
                format!(
                    "{} takes nobody else in {name} now; set a policy that can be met",
                    args.action
                ),
            )
        }
    }
}

async fn loosen_here(escrow: &Escrow, args: &PolicyRescueArgs) -> Result<String, Failure> {
    let failed = |error: escrow::Error| Failure::new(error.to_string());
    let actor = Actor::system("command line", Permissions::all());
    let all = escrow.organisations().list(&actor).await.map_err(failed)?;
    let named = |name: &String| {
        all.iter()
            .find(|one| one.name == *name || one.id.as_str() == name)
    };
    let organisation = match (&args.organisation, all.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| Failure::new("there is no such organisation")),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage(
            "there are several organisations: name one with --organisation",
        )),
    }?;
    let action =
        Action::from_name(&args.action).ok_or_else(|| Failure::usage("there is no such action"))?;
    let permit: Permit<Admin> = escrow
        .authorise(&actor, &organisation.id, "policies")
        .await
        .map_err(failed)?;
    let set = escrow
        .policies()
        .set(&permit, action, Policy::default())
        .await;
    set.map_err(failed)?
        .map_err(|problem| Failure::new(problem.to_string()))?;
    Ok(organisation.name.clone())
}

/// Runs `emergencies`.
pub(crate) async fn emergencies(args: EmergenciesArgs, voice: Voice) -> Outcome {
    match args.command {
        EmergenciesCommand::List(args) => {
            let api = Api::new(&args.server, voice)?;
            let ask = Ask::get(&["emergencies"]).with("all", args.all.then_some("true"));
            listed(&api, ask, EMERGENCIES, voice).await
        }
        EmergenciesCommand::Acknowledge(args) => {
            let api = Api::new(&args.server, voice)?;
            let path = ["emergencies", &args.id, "acknowledge"];
            shown(&api, Ask::post(&path), EMERGENCIES, voice).await
        }
    }
}

async fn listed(api: &Api, ask: Ask<'_>, columns: &[(&str, &str)], voice: Voice) -> Outcome {
    let answer = api.ask(ask).await?.json()?;
    let rows = show::rows(&answer);
    let told: Vec<Value> = rows.iter().map(in_words).collect();
    voice.data(&rows, || show::table(columns, &told))?;
    Ok(DONE)
}

async fn shown(api: &Api, ask: Ask<'_>, columns: &[(&str, &str)], voice: Voice) -> Outcome {
    let answer = api.ask(ask).await?.json()?;
    voice.data(&answer, || show::pairs(&in_words(&answer), columns))?;
    Ok(DONE)
}

/// The same with each vote as words: `yes by Anna`.
fn in_words(row: &Value) -> Value {
    let mut told = row.clone();
    if let Some(votes) = told.get_mut("votes").and_then(Value::as_array_mut) {
        for vote in votes {
            let word = |key: &str| vote[key].as_str().unwrap_or("-").to_owned();
            let comment = vote["comment"].as_str().map(|text| format!(": {text}"));
            *vote = json!(format!(
                "{} by {}{}",
                word("vote"),
                word("name"),
                comment.unwrap_or_default()
            ));
        }
    }
    told
}
