//! `lockwarden bulk`: many devices at once.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apple::dep::LostMessage;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use server::{lifecycle, tables};

use crate::api::{Api, Ask, LeaveArgs, ServerArgs};
use crate::devices::{self, FilterArgs};
use crate::voice::{DONE, FAILED, Failure, Outcome, Voice, bar};
use crate::{operation, private_file, show};

/// Lines that are brought at a time.
const AT_ONCE: usize = 1_000;
/// How often a batch is looked at while we wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Some devices were not done.
const PARTLY: u8 = 3;
/// It was cancelled before it had ended.
const CANCELLED: u8 = 9;
/// The words of lines that came to a good end.
const GOOD: &[&str] = &[
    "unlocked",
    "not_locked",
    "locked",
    "already_locked",
    "asked",
    "duplicate",
];
/// The words of lines that are not over.
const NOT_OVER: &[&str] = &["ready", "queued", "running", "waiting"];

/// Unlock, lock or ask many devices at once: from a file, standard input, or a filter
///
/// Every line is looked at before anything runs. One approval, where a policy asks for one, is for the whole batch. Leaving early stops
/// nothing: `bulk watch` looks again, `bulk pause` holds it, and whatever is killed, no device is done twice.
///
/// Exit status: 0 every device came to a good end; 3 some did not, and `bulk results` says which and what to do; 9 cancelled; 10 others
/// were asked to approve it; 1 for anything else. With --no-wait: 0 when it runs.
#[derive(Args)]
pub(crate) struct BulkArgs {
    #[command(subcommand)]
    command: BulkCommand,
}

#[derive(Subcommand)]
enum BulkCommand {
    /// Turn the locks of many devices off
    Unlock(UnlockArgs),
    /// Turn the organisation's lock of many devices on
    Lock(LockArgs),
    /// Have many devices asked for their codes again
    Refresh(RefreshArgs),
    /// List batches, newest first
    List(ListArgs),
    /// Show how a batch stands
    Show(NamedArgs),
    /// Start a batch that was only looked at, or waited for others
    Start(StartArgs),
    /// Watch a batch to its end
    Watch(WatchArgs),
    /// Let no further line enter the queue; what is there goes on to its end
    Pause(NamedArgs),
    /// Let a batch that is paused go on
    Resume(ResumeArgs),
    /// Cancel a batch, and what of it is under way; an answer on its way wins
    Cancel(NamedArgs),
    /// Take the results, a line each, as CSV or JSON
    Results(ResultsArgs),
}

/// Which devices, and how it is gone about.
#[derive(Args)]
struct ListedArgs {
    /// A table (CSV) with a column of serial numbers, or a list with one a line; - is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "all_that_fit")]
    file: Option<PathBuf>,
    /// In place of a file: every device that fits the filter, or every one at all
    #[arg(long, conflicts_with = "file")]
    all_that_fit: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Why: kept on record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Start without asking; where there is no terminal to ask at, nothing is started without this
    #[arg(long)]
    yes: bool,
    /// Only look at every line, and start nothing
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
    /// The same batch for the same key: what broke off is taken up again [default: a new one each time]
    #[arg(long, value_name = "TEXT", value_parser = operation::idempotency_key)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Clone, Copy)]
struct PaceArgs {
    /// Do not wait until it has ended
    #[arg(long)]
    no_wait: bool,
    /// Say nothing on the way
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct UnlockArgs {
    /// Who it is for, a real person: Apple is told [default: your own name]
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// Try even where Apple says that a device is not locked
    #[arg(long)]
    insist: bool,
    #[command(flatten)]
    listed: ListedArgs,
}

#[derive(Args)]
struct LockArgs {
    /// Who it is for, a real person [default: your own name]
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// What the locked screens are to show
    #[arg(long, value_name = "TEXT")]
    message: Option<LostMessage>,
    #[command(flatten)]
    listed: ListedArgs,
}

#[derive(Args)]
struct RefreshArgs {
    #[command(flatten)]
    listed: ListedArgs,
}

#[derive(Args)]
struct ListArgs {
    /// At most so many, 100 at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct NamedArgs {
    /// Its identifier
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
struct StartArgs {
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    named: NamedArgs,
}

#[derive(Args)]
struct ResumeArgs {
    #[command(flatten)]
    leave: LeaveArgs,
    #[command(flatten)]
    named: NamedArgs,
}

#[derive(Args)]
struct WatchArgs {
    /// Say nothing on the way
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    named: NamedArgs,
}

#[derive(Args)]
struct ResultsArgs {
    /// The new file for them [default: standard output]
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    #[command(flatten)]
    named: NamedArgs,
}

/// Runs the command.
pub(crate) async fn run(args: BulkArgs, voice: Voice) -> Outcome {
    match args.command {
        BulkCommand::Unlock(args) => {
            let mut wish = json!({ "insist": args.insist });
            if let Some(requester) = &args.requester {
                wish["requester"] = requester.as_str().into();
            }
            wanted("unlock", wish, args.listed, voice).await
        }
        BulkCommand::Lock(args) => {
            let mut wish = json!({});
            if let Some(requester) = &args.requester {
                wish["requester"] = requester.as_str().into();
            }
            if let Some(message) = &args.message {
                wish["message"] = message.as_str().into();
            }
            wanted("lock", wish, args.listed, voice).await
        }
        BulkCommand::Refresh(args) => wanted("refresh", json!({}), args.listed, voice).await,
        BulkCommand::List(args) => list(&args, voice).await,
        BulkCommand::Show(args) => {
            let api = Api::new(&args.server, voice)?;
            let batch = api.ask(Ask::get(&["batches", &args.id])).await?.json()?;
            tell(&batch, voice)
        }
        BulkCommand::Start(args) => {
            let api = Api::new(&args.named.server, voice)?.with_leave(&args.leave)?;
            started(&api, &args.named.id, args.pace, voice).await
        }
        BulkCommand::Watch(args) => {
            let api = Api::new(&args.named.server, voice)?;
            ended(&api, &args.named.id, args.quiet, voice).await
        }
        BulkCommand::Pause(args) => {
            let api = Api::new(&args.server, voice)?;
            turn(&api, &args.id, "pause", voice).await
        }
        BulkCommand::Resume(args) => {
            let api = Api::new(&args.named.server, voice)?.with_leave(&args.leave)?;
            turn(&api, &args.named.id, "resume", voice).await
        }
        BulkCommand::Cancel(args) => {
            let api = Api::new(&args.server, voice)?;
            let batch = api.ask(Ask::delete(&["batches", &args.id])).await?.json()?;
            tell(&batch, voice)
        }
        BulkCommand::Results(args) => results(&args, voice).await,
    }
}

/// Makes a batch, brings its lines, shows what would happen, and starts it.
async fn wanted(action: &str, mut wish: Value, args: ListedArgs, voice: Voice) -> Outcome {
    wish["reason"] = devices::reason(&args.reason)?.into();
    let api = Api::new(&args.server, voice)?.with_leave(&args.leave)?;
    let serials = match &args.file {
        Some(file) => serials_of(file)?,
        None => every_one(&api, &args.filter).await?,
    };
    if serials.is_empty() {
        return Err(Failure::usage("no device is named: nothing was done"));
    }
    let key = args.idempotency_key.unwrap_or_else(operation::new_key);
    let ask = Ask::post(&["batches"])
        .with("action", Some(action))
        .json(&wish)?
        .once(&key);
    let batch = api.ask(ask).await?.json()?;
    let id = text(&batch, "id").to_owned();
    let batch = brought(&api, &id, batch, &serials, args.pace.quiet).await?;
    if !args.pace.quiet {
        voice.talk(plan(action, &batch));
    }
    if args.plan {
        voice.data(&batch, || id.clone())?;
        voice.talk(format!(
            "nothing was started; `lockwarden bulk start {id}` does it"
        ));
        return Ok(DONE);
    }
    if text(&batch, "state") == "draft" && !args.yes && !is_meant(&batch)? {
        voice.talk(format!(
            "nothing was started; `lockwarden bulk start {id}` does it later"
        ));
        return Ok(FAILED);
    }
    started(&api, &id, args.pace, voice).await
}

/// The serial numbers of a table or a list.
fn serials_of(path: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let name = if path.as_os_str() == "-" {
            "standard input".into()
        } else {
            path.display().to_string()
        };
        Failure::new(format!("{name}: {error}: nothing was done"))
            .hint("a list has one serial number a line; a table has a heading `serial` over them")
    };
    let read = if path.as_os_str() == "-" {
        tables::serials(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| failed(&error))?;
        tables::serials(file)
    };
    read.map_err(|error| failed(&error))
}

async fn every_one(api: &Api, filter: &FilterArgs) -> Result<Vec<String>, Failure> {
    let found = devices::found(api, filter, usize::MAX).await?;
    Ok(found
        .iter()
        .map(|one| text(one, "serial").to_owned())
        .collect())
}

/// Brings the lines that are not there yet.
async fn brought(
    api: &Api,
    id: &str,
    mut batch: Value,
    serials: &[String],
    quiet: bool,
) -> Result<Value, Failure> {
    let there = |batch: &Value| usize::try_from(number(batch, "lines")).unwrap_or(usize::MAX);
    let path = ["batches", id, "lines"];
    let bar = (!quiet && serials.len() > AT_ONCE).then(|| bar(serials.len() as u64));
    while text(&batch, "state") == "draft" {
        let from = there(&batch);
        let Some(rest) = serials.get(from..).filter(|rest| !rest.is_empty()) else {
            break;
        };
        let stretch = &rest[..rest.len().min(AT_ONCE)];
        let body = json!({ "first": from + 1, "serials": stretch });
        batch = api.ask(Ask::post(&path).json(&body)?).await?.json()?;
        if let Some(bar) = &bar {
            bar.set_position(there(&batch) as u64);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(batch)
}

/// What would happen, in words.
fn plan(action: &str, batch: &Value) -> String {
    let verb = match action {
        "unlock" => "be unlocked",
        "lock" => "be locked",
        _ => "be asked for their codes",
    };
    let mut lines = vec![format!(
        "batch {}: of {} lines, {} devices will {verb}",
        text(batch, "id"),
        number(batch, "lines"),
        number(batch, "ready")
    )];
    for count in show::rows(batch.get("counts").unwrap_or(&Value::Null)) {
        let state = text(count, "state");
        if state != "ready" {
            lines.push(format!(
                "  {} left out: {}",
                number(count, "lines"),
                spoken(state)
            ));
        }
    }
    lines.join("\n")
}

/// A stable word, as it is said.
fn spoken(word: &str) -> String {
    word.replace('_', " ")
}

/// Asks at the terminal whether it is meant.
fn is_meant(batch: &Value) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::usage("there is no terminal to ask at, and nothing was started").hint(
                format!(
                    "--yes starts without asking; or `lockwarden bulk start {}`",
                    text(batch, "id")
                ),
            ),
        );
    }
    eprint!("Start it? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        Failure::new(format!("nothing could be read from the terminal: {error}"))
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn started(api: &Api, id: &str, pace: PaceArgs, voice: Voice) -> Outcome {
    let asked = api.ask(Ask::post(&["batches", id, "start"])).await;
    let batch = asked
        .map_err(|failure| match failure.status {
            crate::voice::ASKED => failure.hint(format!(
                "once it is given: `lockwarden bulk start {id} --approval ID`"
            )),
            _ => failure,
        })?
        .json()?;
    if pace.no_wait {
        voice.data(&batch, || format!("{id}  {}", text(&batch, "state")))?;
        voice.talk(format!("`lockwarden bulk watch {id}` shows how it goes on"));
        return Ok(DONE);
    }
    ended(api, id, pace.quiet, voice).await
}

/// Watches a batch to its end, and shows that.
async fn ended(api: &Api, id: &str, quiet: bool, voice: Voice) -> Outcome {
    let path = ["batches", id];
    let mut shown = None;
    let mut state = String::new();
    let batch = loop {
        let batch = api.ask(Ask::get(&path)).await.map_err(|failure| {
            failure.hint(format!(
                "the batch goes on all the same; `lockwarden bulk watch {id}` looks again"
            ))
        })?;
        let batch = batch.json()?;
        let now = text(&batch, "state").to_owned();
        let is_over = matches!(&*now, "ended" | "cancelled") && number(&batch, "under_way") == 0;
        if is_over {
            break batch;
        }
        if !quiet && now != state {
            match &*now {
                "paused" => voice.talk(format!(
                    "it is paused{}; `lockwarden bulk resume {id}` lets it go on",
                    match text(&batch, "held_for") {
                        "restored" => ", for the database was restored",
                        "not_allowed" => ", for whoever started it may not do that any more",
                        _ => "",
                    }
                )),
                "draft" => {
                    return Err(Failure::new("the batch is a draft: nothing of it runs")
                        .hint(format!("`lockwarden bulk start {id}` starts it")));
                }
                _ => {}
            }
            state = now;
        }
        if !quiet && io::stderr().is_terminal() {
            let lines = u64::try_from(number(&batch, "lines")).unwrap_or(0);
            let bar = shown.get_or_insert_with(|| bar(lines));
            bar.set_position(u64::try_from(number(&batch, "done")).unwrap_or(0));
        }
        lifecycle::clock().sleep(LOOK_EVERY).await;
    };
    if let Some(bar) = shown {
        bar.finish_and_clear();
    }
    tell(&batch, voice)?;
    let status = exit_status(&batch);
    if status == PARTLY && !quiet {
        voice.talk(format!(
            "`lockwarden bulk results {id}` says of each device what came of it, and what to do"
        ));
    }
    Ok(status)
}

/// How well it ended.
fn exit_status(batch: &Value) -> u8 {
    let counts = show::rows(batch.get("counts").unwrap_or(&Value::Null));
    let is_over = counts
        .iter()
        .all(|count| !NOT_OVER.contains(&text(count, "state")));
    match text(batch, "state") {
        "cancelled" => CANCELLED,
        "ended" if is_over => {
            let is_good = |count: &Value| GOOD.contains(&text(count, "state"));
            if counts.iter().all(is_good) {
                DONE
            } else {
                PARTLY
            }
        }
        _ => FAILED,
    }
}

async fn list(args: &ListArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.server, voice)?;
    let ask = Ask::get(&["batches"]).with("limit", Some(args.limit.to_string()));
    let page = api.ask(ask).await?.json()?;
    let found = show::rows(&page);
    voice.data(&found, || {
        let columns = [
            ("ID", "id"),
            ("ACTION", "action"),
            ("STATE", "state"),
            ("LINES", "lines"),
            ("DONE", "done"),
            ("BY", "requested_by"),
            ("MADE", "created_at"),
            ("REASON", "reason"),
        ];
        show::table(&columns, found)
    })?;
    Ok(DONE)
}

async fn turn(api: &Api, id: &str, how: &str, voice: Voice) -> Outcome {
    let path = ["batches", id, how];
    let batch = api.ask(Ask::post(&path)).await?.json()?;
    tell(&batch, voice)
}

fn tell(batch: &Value, voice: Voice) -> Outcome {
    voice.data(batch, || {
        let facts = [
            ("id", "id"),
            ("action", "action"),
            ("state", "state"),
            ("paused, for", "held_for"),
            ("reason", "reason"),
            ("for", "requester"),
            ("asked by", "requested_by"),
            ("lines", "lines"),
            ("ready", "ready"),
            ("under way", "under_way"),
            ("over", "done"),
            ("started at", "started_at"),
            ("ended at", "ended_at"),
        ];
        let counts = batch.get("counts").unwrap_or(&Value::Null);
        let columns = [("STATE", "state"), ("LINES", "lines")];
        format!(
            "{}\n\n{}",
            show::pairs(batch, &facts),
            show::table(&columns, show::rows(counts))
        )
    })?;
    Ok(DONE)
}

/// Every line: as CSV, or one JSON value a line.
async fn results(args: &ResultsArgs, voice: Voice) -> Outcome {
    let api = Api::new(&args.named.server, voice)?;
    let id = args.named.id.as_str();
    let mut file = args
        .out_file
        .as_deref()
        .map(private_file::create)
        .transpose()?;
    let mut put = |text: &str| match &mut file {
        Some(file) => file
            .write_all(text.as_bytes())
            .map_err(|error| Failure::new(format!("the results cannot be written: {error}"))),
        None => voice.pour(text).map(drop),
    };
    if voice.is_json() {
        let path = ["batches", id, "lines"];
        let mut cursor: Option<String> = None;
        loop {
            let ask = Ask::get(&path)
                .with("limit", Some("500"))
                .with("cursor", cursor.take());
            let page = api.ask(ask).await?.json()?;
            for line in show::rows(&page) {
                put(&format!("{line}\n"))?;
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
    } else {
        api.pour(Ask::get(&["batches", id, "results"]), put).await?;
    }
    if let Some(file) = file {
        file.sync()?;
        file.keep();
    }
    Ok(DONE)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_well_when_every_line_is_and_a_word_to_come_is_not_taken_for_good() {
        let batch = |state: &str, words: &[&str]| {
            let counts: Vec<_> = words
                .iter()
                .map(|word| json!({ "state": word, "lines": 1 }))
                .collect();
            exit_status(&json!({ "state": state, "counts": counts }))
        };
        assert_eq!(batch("ended", GOOD), DONE);
        assert_eq!(batch("ended", &["unlocked", "rejected"]), PARTLY);
        assert_eq!(batch("ended", &["unlocked", "probably_unlocked"]), PARTLY);
        assert_eq!(batch("ended", &["no_code"]), PARTLY);
        assert_eq!(batch("ended", &["a word to come"]), PARTLY);
        assert_eq!(batch("ended", &["unlocked", "waiting"]), FAILED);
        assert_eq!(batch("cancelled", &["unlocked"]), CANCELLED);
        assert_eq!(batch("running", &["unlocked"]), FAILED);
    }
}
