//! `lockwarden apple`: asks Apple without a server, a database or a record.

mod lock;
mod lock_status;
mod unlock;

use std::path::Path;

use apple::transport::ExtraAuthorities;
use clap::{Args, Subcommand};

use crate::voice::{self, Failure, Outcome, Voice};

/// Ask Apple directly, without a server
#[derive(Args)]
pub(crate) struct AppleArgs {
    #[command(subcommand)]
    command: AppleCommand,
}

#[derive(Subcommand)]
enum AppleCommand {
    /// Turn the Activation Lock of one device off with codes you have
    ///
    /// Needs nothing but the push certificate. Nothing is recorded here; Apple records the organisation and who asked. Codes
    /// are tried in the order given, the next one only when Apple refused the one before; a text that is no bypass code is
    /// passed over when Apple cannot read it.
    ///
    /// Exit status: 0 unlocked; 2 wrong usage, nothing was sent; 3 refused: not this code, or not this device; 4 malformed or
    /// unexpected; 5 credential: Apple did not accept the certificate, or it cannot be used; 6 unavailable: nothing was decided,
    /// try again later; 7 unknown: the lock may be off or not.
    Unlock(Box<unlock::UnlockArgs>),
    /// Turn the organisation's Activation Lock of one device on, with a code that is kept first
    ///
    /// Needs nothing but the token of the server to which the device is assigned in Apple Business Manager or Apple School
    /// Manager. With --code-out a new code is made; the file and its name are on disk before Apple is asked, for nobody can open a
    /// lock whose code is lost. When the answer is lost, the lock may be on or not: ask again with the same code (--code-file).
    /// `lockwarden apple unlock` turns the lock off with it. Nothing else is recorded here.
    ///
    /// With --json: {"serial", "outcome", "response_status"}, the last in Apple's own word or null; never the code.
    #[command(after_long_help = lock::EXIT_STATUSES)]
    Lock(Box<lock::LockArgs>),
    /// Show whether devices are locked, in Apple's own words
    ///
    /// Needs an API account of Apple Business Manager or Apple School Manager and its private key; which of the two is asked
    /// follows from the client ID. It only asks, one device after the other, and changes nothing. A lock type is MDM (the
    /// organisation's), USER (a person's), NONE, or a word that is not known here, as Apple wrote it. After a lock or an unlock
    /// Apple may still tell of before for some minutes.
    ///
    /// With --json, each device is {"serial", "is_locked", "lock_type"}, null where Apple does not say, and "problem" in words
    /// where it could not be read.
    ///
    /// Exit status: 0 every device was read; 2 wrong usage, nothing was asked; else the first of these that happened to any of
    /// them: 5 credential: Apple did not accept the API account, or its key cannot be used; 6 unavailable: Apple was not
    /// reached or asks to wait, try again later; 4 unexpected: an answer that does not say how the lock is; 3 not managed by
    /// your organisation. After 5, and after a 6 that would meet every device, the rest is not asked.
    LockStatus(Box<lock_status::LockStatusArgs>),
}

/// Runs the command.
pub(crate) async fn run(args: AppleArgs, voice: Voice) -> Outcome {
    match args.command {
        AppleCommand::Unlock(args) => unlock::run(&args, voice).await,
        AppleCommand::Lock(args) => lock::run(&args, voice).await,
        AppleCommand::LockStatus(args) => lock_status::run(&args, voice).await,
    }
}

/// The authorities to believe beside the well-known ones: those of the file, if one was given.
fn authorities(ca_file: Option<&Path>) -> Result<ExtraAuthorities, Failure> {
    let Some(path) = ca_file else {
        return Ok(ExtraAuthorities::default());
    };
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "the file given with --ca-file cannot be used: {why}"
        ))
    };
    let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
    ExtraAuthorities::from_pem(&pem).map_err(|error| unusable(&error))
}

/// Nothing was sent: the files named on the command line are not what they should be.
fn as_usage(failure: Failure) -> Failure {
    Failure {
        status: voice::USAGE,
        ..failure
    }
}
