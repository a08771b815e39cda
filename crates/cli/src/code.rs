//! `lockwarden code`: make bypass codes, and look at one.

use std::path::PathBuf;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash, RAW_BYTES};
use clap::{Args, Subcommand};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{machine, secret_file};

mod generate;

/// Make bypass codes, or look at one
#[derive(Args)]
pub(crate) struct CodeArgs {
    #[command(subcommand)]
    command: CodeCommand,
}

#[derive(Subcommand)]
enum CodeCommand {
    /// Make new bypass codes from the system's randomness, one a line
    ///
    /// With --json each line is an object with the keys raw (32 hexadecimal digits), code (the text a person types) and
    /// hash (what a lock request to Apple carries); with --csv a line of a table with these columns. Hashes are worked out on every
    /// core. Interrupted, it ends behind a whole line, with exit status 130.
    Generate(generate::GenerateArgs),
    /// Show a bypass code in its three forms: raw bytes, text, hash
    ///
    /// The code is read from a file or from standard input, never from the arguments, where other users of the
    /// machine and the shell's history would see it. Small letters, spaces and missing dashes are forgiven; nothing else is.
    Show(ShowArgs),
}

#[derive(Args)]
struct ShowArgs {
    /// Read the 32 hexadecimal digits of the raw code instead of its text
    #[arg(long)]
    raw: bool,
    /// The file that holds the code; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// The three forms, on their way to whoever asked for them.
#[derive(Serialize)]
struct Forms<'a> {
    raw: &'a str,
    code: &'a str,
    hash: &'a str,
}

/// Runs the command.
pub(crate) fn run(args: CodeArgs, voice: Voice) -> Outcome {
    match args.command {
        CodeCommand::Generate(args) => {
            return machine::block_on_all_cores(generate::run(args, voice));
        }
        CodeCommand::Show(args) => print_forms(&read(&args)?, voice)?,
    }
    Ok(DONE)
}

fn read(args: &ShowArgs) -> Result<BypassCode, Failure> {
    let text = secret_file::read(&args.file, "the file with the code")?;
    if !args.raw {
        return BypassCode::parse_lenient(text.trim()).map_err(|error| {
            Failure::new(format!("this is not a bypass code: {error}"))
                .hint("compare it with where it came from; for 32 hexadecimal digits, add --raw")
        });
    }
    let mut raw = Zeroizing::new([0; RAW_BYTES]);
    let digits = text.trim().as_bytes();
    let fits = digits.len() == 2 * RAW_BYTES
        && HEXLOWER_PERMISSIVE
            .decode_mut(digits, raw.as_mut_slice())
            .is_ok();
    if fits {
        Ok(BypassCode::from_raw(*raw))
    } else {
        Err(Failure::new(
            "this is not a raw bypass code: expected 32 hexadecimal digits and nothing else",
        )
        .hint("for the text that a person types, leave --raw out"))
    }
}

fn print_forms(code: &BypassCode, voice: Voice) -> Result<(), Failure> {
    let text = code.to_text();
    let raw = Zeroizing::new(HEXLOWER.encode(code.raw()));
    let hash = Zeroizing::new(EscrowKeyHash::of(code).to_string());
    let forms = Forms {
        raw: &raw,
        code: &text,
        hash: &hash,
    };
    voice.data(&forms, || {
        format!(
            "raw   {}\ncode  {}\nhash  {}",
            forms.raw, forms.code, forms.hash
        )
    })
}
