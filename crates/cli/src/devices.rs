//! `lockwarden devices`: which devices there are, and whether their codes are held.

use std::path::PathBuf;

use activation_lock::device::{Imei, Meid, ProductType, SerialNumber};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use server::lifecycle;

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{secret_file, show};

mod page;

/// List devices, show one, set by hand what is known of it, ask it again
#[derive(Args)]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    command: DevicesCommand,
}

#[derive(Subcommand)]
enum DevicesCommand {
    /// List devices, all pages of them
    List(ListArgs),
    /// Show one device: what is known of it, its locks, its codes (without their texts), its unlocks, what happened
    Show(ShowArgs),
    /// Set by hand how a device is named to Apple; a device that is not known yet becomes known
    ///
    /// What a person sets is not replaced by what the device tells.
    Set(SetArgs),
    /// Add a code by hand, such as one from another system; it is kept as it is and tried after the device's own
    AddCode(AddCodeArgs),
    /// Have a device asked for its code again
    Refresh(ShowArgs),
    /// Remove a device for ever, with its codes and all else that is kept of it
    ///
    /// Nothing of a device goes in any other way. The audit record stays, and so do backups made before. A device that an MDM or
    /// Apple's list still has becomes known anew, without its codes.
    Purge(PurgeArgs),
}

#[derive(Args)]
struct PurgeArgs {
    /// The serial number
    serial: SerialNumber,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also when it is locked, or may be: then nobody but Apple can unlock it
    #[arg(long)]
    even_though_locked: bool,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which devices are meant.
#[derive(Args)]
pub(crate) struct FilterArgs {
    /// Only devices with a serial number, name or product type that has a word beginning so
    #[arg(value_name = "WORD")]
    search: Option<String>,
    /// Only devices whose code is held (covered), should be held and is not (missing), or that give none (exempt)
    #[arg(long, value_name = "STATE", value_parser = ["covered", "missing", "exempt"])]
    coverage: Option<String>,
    /// Only devices without a code whose 15 days end soon
    #[arg(long)]
    closing: bool,
    /// Only devices of this MDM connection
    #[arg(long, value_name = "NAME")]
    mdm: Option<String>,
    /// Only devices of this product type, such as iPad4,1
    #[arg(long, value_name = "TYPE")]
    product_type: Option<String>,
    /// Only devices on which the organisation's own lock stands so
    #[arg(long, value_name = "STATE", value_parser = ["none", "confirmed", "unknown", "someone_elses"])]
    lock: Option<String>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ShowArgs {
    /// The serial number
    serial: SerialNumber,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct SetArgs {
    /// The serial number
    serial: SerialNumber,
    /// The hardware identifier, such as iPad4,1 (not the model's name)
    #[arg(long, value_name = "P")]
    product_type: Option<ProductType>,
    /// The IMEI of slot one, or the only one
    #[arg(long, value_name = "N")]
    imei: Option<Imei>,
    /// The IMEI of slot two
    #[arg(long, value_name = "N")]
    imei2: Option<Imei>,
    /// The MEID
    #[arg(long, value_name = "N")]
    meid: Option<Meid>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct AddCodeArgs {
    /// The serial number
    serial: SerialNumber,
    /// The file with the code; - is standard input
    #[arg(long, value_name = "FILE")]
    code_file: PathBuf,
    /// Who made it
    #[arg(long, value_name = "WHO", value_parser = ["device", "server", "unknown"], default_value = "unknown")]
    kind: String,
    /// Where it comes from
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct ByHand<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    product_type: Option<&'a ProductType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imei: Option<&'a Imei>,
    #[serde(skip_serializing_if = "Option::is_none")]
    imei2: Option<&'a Imei>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meid: Option<&'a Meid>,
}

#[derive(Serialize)]
struct NewCode<'a> {
    text: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// Runs the command.
pub(crate) async fn run(args: DevicesArgs, voice: Voice) -> Outcome {
    match args.command {
        DevicesCommand::Set(args) => set(args, voice).await,
        DevicesCommand::AddCode(args) => add_code(args, voice).await,
        DevicesCommand::Refresh(args) => refresh(args, voice).await,
        DevicesCommand::Purge(args) => purge(args, voice).await,
        DevicesCommand::List(args) => list(args, voice).await,
        DevicesCommand::Show(args) => show(args, voice).await,
    }
}

const LIST: &[(&str, &str)] = &[
    ("SERIAL", "serial"),
    ("PRODUCT", "product_type"),
    ("NAME", "device_name"),
    ("MDM", "connection"),
    ("CODE", "coverage"),
    ("WHY NOT", "coverage_reason"),
    ("WINDOW", "window"),
];
/// How a lock by the organisation stands. Shown where there is one, so that a list without any stays as narrow as it is.
const LOCK: (&str, &str) = ("LOCK", "lock");

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let most = args.limit.unwrap_or(usize::MAX);
    let found = found(&api, &args.filter, most).await?;
    voice.data(&found, || {
        let has_lock = |device: &Value| device.get("lock").is_some_and(|lock| lock != "none");
        let lock = found.iter().any(has_lock).then_some(LOCK);
        let columns: Vec<_> = LIST.iter().copied().chain(lock).collect();
        show::table(&columns, &found)
    })?;
    voice.talk(format!("{} device(s)", found.len()));
    Ok(DONE)
}

/// The devices that fit a filter, from every page.
pub(crate) async fn found(
    api: &Api,
    filter: &FilterArgs,
    most: usize,
) -> Result<Vec<Value>, Failure> {
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let ask = Ask::get(&["devices"])
            .with("search", filter.search.clone())
            .with("coverage", filter.coverage.clone())
            .with("closing", filter.closing.then_some("true"))
            .with("connection", filter.mdm.clone())
            .with("product_type", filter.product_type.clone())
            .with("lock", filter.lock.clone())
            .with("cursor", cursor.take());
        let page = api.ask(ask).await?.json()?;
        found.extend_from_slice(show::rows(&page));
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if found.len() >= most || cursor.is_none() {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}

async fn show(args: ShowArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let device = api
        .ask(Ask::get(&["devices", args.serial.as_str()]))
        .await?
        .json()?;
    let now = lifecycle::clock().now();
    voice.data(&device, || page::of(&device, now))?;
    Ok(DONE)
}

async fn set(args: SetArgs, voice: Voice) -> Outcome {
    let by_hand = ByHand {
        product_type: args.product_type.as_ref(),
        imei: args.imei.as_ref(),
        imei2: args.imei2.as_ref(),
        meid: args.meid.as_ref(),
    };
    let api = Api::new(&args.server, voice)?;
    let path = ["devices", args.serial.as_str()];
    let device = api
        .ask(Ask::new(Method::PATCH, &path).json(&by_hand)?)
        .await?
        .json()?;
    let now = lifecycle::clock().now();
    voice.data(&device, || page::of(&device, now))?;
    Ok(DONE)
}

async fn add_code(args: AddCodeArgs, voice: Voice) -> Outcome {
    let text = secret_file::read(&args.code_file, "the file with the code")?;
    let new = NewCode {
        text: text.trim_end_matches(['\r', '\n']),
        kind: &args.kind,
        note: args.note.as_deref(),
    };
    let api = Api::new(&args.server, voice)?;
    let path = ["devices", args.serial.as_str(), "codes"];
    let added = api.ask(Ask::post(&path).json(&new)?).await?.json()?;
    voice.data(&added, || {
        show::pairs(
            &added,
            &[("id", "id"), ("new", "new"), ("written", "shape")],
        )
    })?;
    if let Some(warning) = added.get("warning").and_then(Value::as_str) {
        voice.talk(format!("warning: {warning}"));
    }
    Ok(DONE)
}

async fn refresh(args: ShowArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let path = ["devices", args.serial.as_str(), "refresh"];
    let asked = api.ask(Ask::post(&path)).await?.json()?;
    voice.data(&asked, || {
        show::pairs(&asked, &[("serial", "serial"), ("asked", "asked")])
    })?;
    voice.talk("the device is asked; `lockwarden devices show` shows its answer");
    Ok(DONE)
}

async fn purge(args: PurgeArgs, voice: Voice) -> Outcome {
    let why = json!({
        "reason": reason(&args.reason)?,
        "even_though_locked": args.even_though_locked,
    });
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let path = ["devices", args.serial.as_str(), "purge"];
    let removed = api.ask(Ask::post(&path).json(&why)?).await?.json()?;
    voice.data(&removed, || {
        show::pairs(&removed, &[("serial", "serial"), ("codes", "codes")])
    })?;
    voice.talk("it is removed for ever; the audit record and backups made before still tell of it");
    Ok(DONE)
}

/// A reason that is more than nothing.
///
/// # Errors
/// When it is blank.
pub(crate) fn reason(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::usage("the reason is empty")
            .hint("it is kept on record beside who asked: write why, such as a ticket's number"));
    }
    Ok(text)
}
