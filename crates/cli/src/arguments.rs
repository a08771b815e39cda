//! The command line: every command, in two groups.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    apple, approvals, audit, backup, bench, bulk, business_api, code, coverage, credentials, db,
    dep, devices, doctor, export, init, key, lock, lock_status, locks, mdm, notices, organisations,
    people, push_certificate, reveal, serve, sign_in, sim, token, unlock, unlocks,
};

/// Keeps the Activation Lock bypass codes of your Apple devices, and turns the lock off with them
#[derive(Parser)]
#[command(
    name = "lockwarden",
    version,
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) everywhere: Everywhere,
    #[command(subcommand)]
    pub(crate) command: Commands,
}

/// Options of every command.
#[derive(Args)]
pub(crate) struct Everywhere {
    /// Write data as JSON, one value a line, and failures as JSON too
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// All commands.
#[derive(Subcommand)]
pub(crate) enum Commands {
    Serve(serve::ServeArgs),
    Worker(serve::WorkerArgs),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Db(db::DbArgs),
    Key(key::KeyArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Code(code::CodeArgs),
    Apple(apple::AppleArgs),
    Bench(bench::BenchArgs),
    Sim(sim::SimArgs),
    Join(sign_in::JoinArgs),
    SignIn(sign_in::SignInArgs),
    SignOut(sign_in::SignOutArgs),
    SecondFactor(credentials::SecondFactorArgs),
    Password(credentials::PasswordArgs),
    Sessions(credentials::SessionsArgs),
    Devices(devices::DevicesArgs),
    Reveal(reveal::RevealArgs),
    Export(export::ExportArgs),
    Unlock(unlock::UnlockArgs),
    Unlocks(unlocks::UnlocksArgs),
    Lock(lock::LockArgs),
    Locks(locks::LocksArgs),
    LockStatus(lock_status::LockStatusArgs),
    Bulk(bulk::BulkArgs),
    Coverage(coverage::CoverageArgs),
    Mdm(mdm::MdmArgs),
    PushCertificate(push_certificate::PushCertificateArgs),
    Dep(dep::DepArgs),
    BusinessApi(business_api::BusinessApiArgs),
    Approvals(approvals::ApprovalsArgs),
    Policies(approvals::PoliciesArgs),
    Emergencies(approvals::EmergenciesArgs),
    Notices(notices::NoticesArgs),
    People(people::PeopleArgs),
    Token(token::TokenArgs),
    Audit(audit::AuditArgs),
    Organisations(organisations::OrganisationsArgs),
}

/// The commands that talk to a running server. The others work on local files.
const OF_A_SERVER: &[&str] = &[
    "join",
    "sign-in",
    "sign-out",
    "second-factor",
    "password",
    "sessions",
    "approvals",
    "policies",
    "emergencies",
    "notices",
    "people",
    "devices",
    "reveal",
    "export",
    "unlock",
    "unlocks",
    "lock",
    "locks",
    "lock-status",
    "bulk",
    "coverage",
    "organisations",
    "mdm",
    "push-certificate",
    "dep",
    "business-api",
    "token",
];

const ENDING: &str = "\
Data goes to standard output, everything else to standard error.
Exit status: 0 done; 1 failed; 2 wrong usage, nothing was done; 10 others were asked to approve it first; the `apple` commands, `unlock --wait` and
`lock --wait` list more.
Codes, keys, tokens and passwords are read from files or standard input, never from the arguments.";

/// The whole command line with its help.
pub(crate) fn command() -> Command {
    let command = Arguments::command();
    let list = |title: &str, of_a_server: bool| {
        let mut text = format!("{title}\n");
        for sub in command.get_subcommands() {
            if OF_A_SERVER.contains(&sub.get_name()) == of_a_server {
                let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
                let _ = writeln!(text, "  {:<17} {about}", sub.get_name());
            }
        }
        text
    };
    let servers = list(
        "Commands that talk to a server (`sign-in` once, or --url and --token-file, or LOCKWARDEN_URL and LOCKWARDEN_TOKEN_FILE):",
        true,
    );
    let files = list("Commands on local files:", false);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{files}\n{servers}\nOptions:\n{{options}}\n\n{ENDING}\n"
    );
    command.help_template(template)
}

/// Reads the command line.
///
/// # Errors
/// As clap has it: help and version are errors too, with exit status 0.
pub(crate) fn parse(given: &[OsString]) -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches_from(given)?;
    Arguments::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_of_a_server_is_a_command() {
        let all: Vec<String> = command()
            .get_subcommands()
            .map(|sub| sub.get_name().to_owned())
            .collect();
        for name in OF_A_SERVER {
            assert!(all.iter().any(|known| known == name), "{name}");
        }
    }

    /// A secret on a command line is seen by every user of the machine (R23).
    #[test]
    fn r23_no_argument_takes_a_secret() {
        fn walk(command: &Command, path: &str) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str().to_lowercase();
                let takes_text = argument.get_action().takes_values();
                let secret = ["token", "password", "secret", "key", "code"]
                    .iter()
                    .any(|word| name.split('_').any(|part| part == *word));
                let is_reference = name.ends_with("_file")
                    || [
                        "key",
                        "key_id",
                        "token_url",
                        "server_token",
                        "idempotency_key",
                        "code_out",
                    ]
                    .contains(&name.as_str());
                assert!(
                    !(takes_text && secret) || is_reference,
                    "{path} takes {name} as text"
                );
            }
            for sub in command.get_subcommands() {
                walk(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        walk(&command(), "lockwarden");
    }
}
