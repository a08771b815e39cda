//! `lockwarden audit`: the record of who did what.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use activation_lock::time::Timestamp;
use clap::{Args, Subcommand};
use escrow::audit::{Bad, Place, Retention, Verified, Verifier};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::{Api, Ask, ServerArgs};
use crate::local::{self, ConfigArgs};
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice};
use crate::{private_file, show};

/// Nothing is wrong, and no checkpoint from outside stands for the end of the record.
const UNPROVEN: u8 = 3;
/// Lines of checkpoints compared at once.
const LINES: usize = 500;
/// What a line of checkpoints begins with.
const LINE: &str = "{\"checkpoint\":";

/// Read, export and verify the record of who did what; remove what is old
#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// List rows, newest first; that they were read is on record
    List(ListArgs),
    /// Give out rows, oldest first, one line of JSON each; that they were is on record
    Export(ExportArgs),
    /// Look for whatever was changed, removed, put in, reordered or cut off
    ///
    /// Works on this machine's vault, beside a running server; with --remote it asks the server. Exit status: 0 when nothing
    /// is wrong and a checkpoint from outside stands for all of the record; 1 when something is wrong: the first of it is named;
    /// 3 when nothing is wrong, and rows after the checkpoint, or all without one, are unproven: what was cut off behind them
    /// left no trace.
    Verify(VerifyArgs),
    /// Remove rows older than a date, once they are in a file; a signed horizon stands for them
    ///
    /// The server must be stopped. What is left stays verifiable.
    Retain(RetainArgs),
    /// Show the public key that checks the signatures of checkpoints
    PublicKey(PublicKeyArgs),
}

#[derive(Args)]
struct WhichArgs {
    /// Only rows about this: a serial number, an identifier
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only rows of this principal, by its identifier
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only rows of this action, such as code.reveal
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only rows with this result, such as ok
    #[arg(long, value_name = "RESULT")]
    result: Option<String>,
    /// Only rows of this date or moment or later, as 2026-10-01 or 2026-10-01T08:30:00Z
    #[arg(long, value_name = "DATE", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only rows before this date or moment
    #[arg(long, value_name = "DATE", value_parser = moment)]
    until: Option<Timestamp>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// At most so many [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct ExportArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Write the rows to this new file, which only you may read, instead of showing them
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct VerifyArgs {
    /// Checkpoints that were kept outside, one a line: each is compared, and the last says up to where the record is proven
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Ask the server instead of reading this machine's vault; it compares the last checkpoint alone
    #[arg(long, conflicts_with = "config")]
    remote: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct RetainArgs {
    /// Rows before this date or moment are removed, up to the first that is not
    #[arg(long, value_name = "DATE", value_parser = moment)]
    before: Timestamp,
    /// Why; stands on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The new file for them, which is on disk before they go
    #[arg(long, value_name = "FILE")]
    out_file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args)]
struct PublicKeyArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub(crate) async fn run(args: AuditArgs, voice: Voice) -> Outcome {
    match args.command {
        AuditCommand::List(args) => list(args, voice).await,
        AuditCommand::Export(args) => export(args, voice).await,
        AuditCommand::Verify(args) if args.remote => verify_remotely(args, voice).await,
        AuditCommand::Verify(args) => verify(args, voice).await,
        AuditCommand::Retain(args) => retain(args, voice).await,
        AuditCommand::PublicKey(args) => public_key(args, voice).await,
    }
}

/// A date, which is its first moment in UTC, or a moment.
fn moment(text: &str) -> Result<Timestamp, String> {
    let whole = match text.contains(['T', 't', ' ']) {
        true => text.to_owned(),
        false => format!("{text}T00:00:00Z"),
    };
    OffsetDateTime::parse(&whole, &Rfc3339)
        .ok()
        .and_then(|at| i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok())
        .map(Timestamp)
        .ok_or_else(|| "write it as 2026-10-01 or 2026-10-01T08:30:00Z".to_owned())
}

fn written(at: Timestamp) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).ok()?;
    at.format(&Rfc3339).ok()
}

impl WhichArgs {
    fn ask<'a>(&self, path: &'a [&'a str]) -> Ask<'a> {
        Ask::get(path)
            .with("subject", self.subject.clone())
            .with("actor", self.actor.clone())
            .with("action", self.action.clone())
            .with("result", self.result.clone())
            .with("since", self.since.and_then(written))
            .with("until", self.until.and_then(written))
    }
}

async fn list(args: ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let most = usize::try_from(args.limit.unwrap_or(100)).unwrap_or(usize::MAX);
    let mut rows: Vec<Value> = Vec::new();
    let mut cursor = None;
    loop {
        let limit = (most - rows.len()).min(500).to_string();
        let ask = args.which.ask(&["audit"]);
        let ask = ask.with("limit", Some(limit)).with("cursor", cursor.take());
        let page = api.ask(ask).await?.json()?;
        rows.extend_from_slice(show::rows(&page));
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || rows.len() >= most {
            break;
        }
    }
    voice.data(&rows, || {
        let named = rows.iter().map(|row| {
            let mut row = row.clone();
            row["who"] = row["actor"]["name"].clone();
            row
        });
        let named: Vec<_> = named.collect();
        show::table(
            &[
                ("AT", "at"),
                ("WHO", "who"),
                ("ACTION", "action"),
                ("SUBJECT", "subject"),
                ("RESULT", "result"),
                ("REASON", "reason"),
                ("POSITION", "position"),
                ("INTACT", "intact"),
            ],
            &named,
        )
    })?;
    if cursor.is_some() {
        voice.talk("there are more; --limit shows them");
    }
    Ok(DONE)
}

async fn export(args: ExportArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let ask = args.which.ask(&["audit", "export"]);
    let Some(path) = &args.out_file else {
        api.pour(ask, |lines| voice.raw(lines)).await?;
        return Ok(DONE);
    };
    let mut file = private_file::create(path)?;
    let mut count = 0;
    api.pour(ask, |lines| {
        count += lines.lines().count();
        file.write_line(lines.trim_end_matches('\n'))
    })
    .await?;
    file.keep();
    voice.done(
        "rows",
        &count.to_string(),
        format!("{count} rows are in the file"),
    )
}

async fn verify(args: VerifyArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    // A file that cannot be read is found out before the record is.
    let outside = args.checkpoint.as_deref().map(open).transpose()?;
    let vault = local::look(&config, voice).await?;
    let mut verifier = vault.audit().verifier();
    let found = look_through(&mut verifier, outside, voice).await;
    vault.close().await;
    match found? {
        Some(bad) => tell_bad(&bad, voice),
        None => tell_whole(&verifier.verified(), voice),
    }
}

fn open(path: &Path) -> Result<(&Path, File), Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    Ok((path, file))
}

async fn look_through(
    verifier: &mut Verifier,
    outside: Option<(&Path, File)>,
    voice: Voice,
) -> Result<Option<Bad>, Failure> {
    let failed = |error: escrow::Error| Failure::new(error.to_string());
    if let Some(bad) = verifier.record().await.map_err(failed)? {
        return Ok(Some(bad));
    }
    let Some((path, file)) = outside else {
        return Ok(None);
    };
    let (mut first, mut lines) = (1, Vec::new());
    for (line, number) in BufReader::new(file).lines().zip(1_u64..) {
        let line = line
            .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
        if is_cut_off(&line) {
            voice.talk(format!("line {number} was cut off, and is passed over"));
            lines.push(String::new());
        } else {
            lines.push(line);
        }
        if lines.len() == LINES {
            let page = std::mem::take(&mut lines);
            if let Some(bad) = verifier.compare(first, page).await.map_err(failed)? {
                return Ok(Some(bad));
            }
            first = number + 1;
        }
    }
    verifier.compare(first, lines).await.map_err(failed)
}

/// Whether a line is the beginning of a checkpoint, as a crash leaves it.
fn is_cut_off(line: &str) -> bool {
    (line.starts_with(LINE) || LINE.starts_with(line) && !line.is_empty())
        && serde_json::from_str::<Value>(line).is_err()
}

fn tell_bad(bad: &Bad, voice: Voice) -> Outcome {
    let (position, counter) = match &bad.place {
        Place::Position(position) => (Some(*position), None),
        Place::Counter { writer, counter } => {
            (None, Some(json!({ "writer": writer, "counter": counter })))
        }
        _ => (None, None),
    };
    let value = json!({
        "verdict": "bad",
        "place": bad.place.to_string(),
        "position": position,
        "counter": counter,
        "organisation": bad.organisation,
        "id": bad.id,
        "what": bad.what,
    });
    voice.data(&value, || format!("bad: {bad}"))?;
    Ok(FAILED)
}

fn tell_whole(verified: &Verified, voice: Voice) -> Outcome {
    let until = verified.proven.map(|proven| proven.at);
    let verdict = if verified.is_proven() {
        "proven"
    } else {
        "unproven"
    };
    let value = json!({
        "verdict": verdict,
        "rows": verified.rows,
        "position": verified.position,
        "unsealed": verified.unsealed,
        "compared": verified.compared,
        "unproven": verified.unproven,
        "proven_until": until.and_then(written),
        "horizon": verified.horizon.map(|(position, at)| json!({ "position": position, "at": written(at) })),
    });
    voice.data(&value, || {
        let after = until.or(verified.last_at).and_then(written);
        let after = after.as_deref().unwrap_or("the beginning");
        match verified.is_proven() {
            true => format!("{verified}\nproven up to {after}"),
            false => format!("{verified}\nthe tail after {after} is unproven"),
        }
    })?;
    Ok(if verified.is_proven() { DONE } else { UNPROVEN })
}

async fn verify_remotely(args: VerifyArgs, voice: Voice) -> Outcome {
    let last = match &args.checkpoint {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(format!("{} cannot be read: {error}", path.display()))
            })?;
            let mut whole = text.lines().rev().filter(|line| !is_cut_off(line));
            let last = whole.find(|line| !line.trim().is_empty());
            Some(last.map(str::to_owned).ok_or_else(|| {
                Failure::new(format!("there is no checkpoint in {}", path.display()))
            })?)
        }
        None => None,
    };
    let api = Api::new(&args.server, voice)?;
    let ask = Ask::get(&["audit", "verify"]).with("checkpoint", last);
    let found = api.ask(ask.patiently()).await?.json()?;
    voice.data(&found, || {
        let mut text = show::cell(&found, "says");
        for (key, name) in [("organisation", "organisation"), ("id", "row")] {
            if let Some(value) = found["bad"][key].as_str() {
                text.push_str(&format!("\n{name} {value}"));
            }
        }
        text
    })?;
    Ok(match found["verdict"].as_str() {
        Some("proven") => DONE,
        Some("unproven") => UNPROVEN,
        _ => FAILED,
    })
}

async fn retain(args: RetainArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    if args.reason.trim().is_empty() {
        return Err(Failure::usage("the reason is blank").hint("it stands on record: say why"));
    }
    if args.before > server::lifecycle::clock().now() {
        return Err(Failure::usage("the date is in the future")
            .hint("rows before it are removed: give a date that has passed"));
    }
    let settings = config
        .settings()
        .map_err(|error| Failure::new(error.to_string()))?;
    let vault = local::open(&config, voice).await?;
    let retained = vault
        .audit()
        .retain(Retention {
            before: args.before,
            reason: args.reason.trim(),
            archive: &args.out_file,
            streams: &settings.outside.streams(),
        })
        .await;
    vault.close().await;
    let retained = retained.map_err(|error| Failure::new(error.to_string()))?;
    let Some(retained) = retained else {
        voice.data(&json!({ "rows": 0 }), || {
            "no sealed row is older: nothing was removed".to_owned()
        })?;
        return Ok(DONE);
    };
    let value = json!({
        "rows": retained.rows,
        "position": retained.position,
        "archive": args.out_file,
    });
    voice.data(&value, || {
        format!(
            "{} rows, up to position {}, are in {} and no longer in the vault",
            retained.rows,
            retained.position,
            args.out_file.display()
        )
    })?;
    voice.talk("keep the file: its rows are in no other place; its last line is the signed horizon that stands for them");
    Ok(DONE)
}

async fn public_key(args: PublicKeyArgs, voice: Voice) -> Outcome {
    let config = args.config.read()?;
    let vault = local::look(&config, voice).await?;
    let keys = vault.audit().public_keys();
    vault.close().await;
    let texts: Vec<_> = keys.iter().map(|key| key.to_text()).collect();
    voice.data(&json!({ "public_keys": texts }), || texts.join("\n"))?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_first_moment() {
        assert_eq!(moment("2026-10-01"), Ok(Timestamp(1_790_812_800_000)));
        assert_eq!(
            moment("2026-10-01T00:00:00+01:00"),
            Ok(Timestamp(1_790_809_200_000))
        );
        assert!(moment("yesterday").is_err() && moment("").is_err());
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_told_from_one_that_is_none() {
        assert!(is_cut_off("{\"chec"));
        assert!(is_cut_off("{\"checkpoint\":{\"at\":17"));
        assert!(!is_cut_off("{\"checkpoint\":{},\"signature\":\"\"}"));
        assert!(!is_cut_off("something else"));
        assert!(!is_cut_off(""));
    }
}
