//! Codes by the million: made and hashed a block at a time, so that memory does not grow and every line that is written is whole.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash, RAW_BYTES};
use clap::Args;
use data_encoding::HEXLOWER;
use indicatif::ProgressBar;
use seal::Random;
use zeroize::Zeroizing;

use super::Forms;
use crate::machine;
use crate::voice::{self, DONE, Failure, Outcome, Voice};

/// Codes a block: about half a second's work on two cores.
const BLOCK: u64 = 512;
/// The most that one line takes, bytes.
const LONGEST_LINE: usize = 256;
/// The exit status of a command that was interrupted.
const INTERRUPTED: u8 = 130;

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    number: u64,
    /// As a table with the columns raw, code and hash
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Csv,
    Json,
}

/// Runs the command. Interrupted, it ends behind a whole line.
pub(super) async fn run(args: GenerateArgs, voice: Voice) -> Outcome {
    let form = match (args.csv, voice.is_json()) {
        (true, _) => Form::Csv,
        (false, true) => Form::Json,
        (false, false) => Form::Text,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.store(true, Ordering::Relaxed);
        }
    });
    let bar = bar(args.number);
    let random = machine::random();
    if matches!(form, Form::Csv) && !voice.pour("raw,code,hash\n")? {
        return Ok(DONE);
    }
    let mut made = 0;
    while made < args.number {
        let count = BLOCK.min(args.number - made);
        let random = random.clone();
        let block = tokio::task::spawn_blocking(move || block(count, form, &random));
        let lines = block
            .await
            .map_err(|error| Failure::new(format!("no code could be made: {error}")))??;
        if !voice.pour(&lines)? {
            break;
        }
        made += count;
        bar.inc(count);
        if stop.load(Ordering::Relaxed) && made < args.number {
            bar.abandon();
            voice.talk(format!(
                "stopped after {made} of {}; every line that was written is whole",
                args.number
            ));
            return Ok(INTERRUPTED);
        }
    }
    bar.finish_and_clear();
    Ok(DONE)
}

/// How far it is, for a person who does not see the lines themselves.
fn bar(number: u64) -> ProgressBar {
    if number <= BLOCK || std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    voice::bar(number)
}

fn block(count: u64, form: Form, random: &Arc<dyn Random>) -> Result<Zeroizing<String>, Failure> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(vec![0; count * RAW_BYTES]);
    random.fill(&mut bytes);
    let codes: Vec<BypassCode> = bytes
        .as_chunks::<RAW_BYTES>()
        .0
        .iter()
        .map(|raw| BypassCode::from_raw(*raw))
        .collect();
    // Room for all of it at once, so that no smaller copy is left behind in memory.
    let mut lines = Zeroizing::new(String::with_capacity(count * LONGEST_LINE));
    let hashes = match form {
        Form::Text => Vec::new(),
        Form::Csv | Form::Json => EscrowKeyHash::of_batch(&codes),
    };
    for (at, code) in codes.iter().enumerate() {
        let text = code.to_text();
        let Some(hash) = hashes.get(at) else {
            lines.push_str(&text);
            lines.push('\n');
            continue;
        };
        let raw = Zeroizing::new(HEXLOWER.encode(code.raw()));
        let hash = Zeroizing::new(hash.to_string());
        if matches!(form, Form::Csv) {
            // A String takes whatever is written.
            let _ = writeln!(*lines, "{},{},{}", *raw, *text, *hash);
        } else {
            let forms = Forms {
                raw: &raw,
                code: &text,
                hash: &hash,
            };
            let line = serde_json::to_string(&forms).map(Zeroizing::new);
            let line = line.map_err(|error| {
                Failure::new(format!("a code cannot be written as JSON: {error}"))
            })?;
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    Ok(lines)
}
