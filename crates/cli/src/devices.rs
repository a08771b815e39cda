//! `lockwarden devices`: which devices there are, and whether their codes are held.

use activation_lock::device::SerialNumber;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::api::{Api, Ask, ServerArgs};
use crate::show;
use crate::voice::{DONE, Failure, Outcome, Voice};

/// List devices, or show one
#[derive(Args)]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    command: DevicesCommand,
}

#[derive(Subcommand)]
enum DevicesCommand {
    /// List devices, all pages of them
    List(ListArgs),
    /// Show one device: what is known of it, its codes (without their texts), its unlocks, what happened
    Show(ShowArgs),
}

#[derive(Args)]
struct ListArgs {
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

/// Runs the command.
pub(crate) async fn run(args: DevicesArgs, voice: Voice) -> Outcome {
    match args.command {
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

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let most = args.limit.unwrap_or(usize::MAX);
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let ask = Ask::get(&["devices"])
            .with("search", args.search.clone())
            .with("coverage", args.coverage.clone())
            .with("closing", args.closing.then_some("true"))
            .with("connection", args.mdm.clone())
            .with("product_type", args.product_type.clone())
            .with("cursor", cursor.take());
        let page = api.ask(ask).await?.json()?;
        found.extend_from_slice(show::rows(&page));
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if found.len() >= most || cursor.is_none() {
            break;
        }
    }
    found.truncate(most);
    voice.data(&found, || show::table(LIST, &found))?;
    voice.talk(format!("{} device(s)", found.len()));
    Ok(DONE)
}

async fn show(args: ShowArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let device = api
        .ask(Ask::get(&["devices", args.serial.as_str()]))
        .await?
        .json()?;
    voice.data(&device, || page(&device))?;
    Ok(DONE)
}

fn page(device: &Value) -> String {
    let summary = device.get("summary").unwrap_or(device);
    let mut text = show::pairs(
        summary,
        &[
            ("serial", "serial"),
            ("organisation", "organisation"),
            ("product type", "product_type"),
            ("model", "model_name"),
            ("name", "device_name"),
            ("system", "os_version"),
            ("MDM", "connection"),
            ("code", "coverage"),
            ("why not", "coverage_reason"),
            ("window", "window"),
            ("window closes", "window_closes_at"),
            ("doubt", "suspect"),
            ("last seen", "seen_at"),
        ],
    );
    let mut section = |title: &str, key: &str, columns: &[(&str, &str)]| {
        let rows = device.get(key).map_or(&[][..], show::rows);
        if !rows.is_empty() {
            text.push_str(&format!("\n\n{title}\n{}", show::table(columns, rows)));
        }
    };
    section(
        "Codes (`lockwarden reveal` shows their texts)",
        "codes",
        &[
            ("MADE BY", "kind"),
            ("CURRENT", "current"),
            ("FROM", "origin"),
            ("DOUBT", "doubt"),
            ("FIRST SEEN", "created_at"),
            ("LAST SEEN", "seen_at"),
        ],
    );
    section(
        "Unlocks",
        "unlocks",
        &[
            ("ID", "id"),
            ("STATE", "state"),
            ("ASKED BY", "requested_by"),
            ("ASKED AT", "requested_at"),
            ("ENDED AT", "ended_at"),
        ],
    );
    section(
        "What happened",
        "timeline",
        &[("WHEN", "at"), ("WHAT", "what"), ("DETAILS", "details")],
    );
    text
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
