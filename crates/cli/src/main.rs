//! The one binary `lockwarden`: the server, its command line, and commands on local files.

mod api;
mod apple;
mod approvals;
mod arguments;
mod audit;
mod backup;
mod bench;
mod bulk;
mod business_api;
mod code;
mod coverage;
mod credentials;
mod db;
mod dep;
mod devices;
mod doctor;
mod export;
mod init;
mod key;
mod key_source;
mod local;
mod lock;
mod lock_status;
mod locks;
mod machine;
mod mdm;
mod notices;
mod operation;
mod organisations;
mod owner;
mod people;
mod private_file;
mod prompt;
mod push_certificate;
mod reveal;
mod secret_file;
mod serve;
mod session_file;
mod show;
mod sign_in;
mod sim;
mod token;
mod unlock;
mod unlocks;
mod voice;

use std::ffi::OsString;
use std::process::ExitCode;

use activation_lock::bypass_code::BypassCode;

use crate::arguments::Commands;
use crate::voice::{Failure, Outcome, Voice};

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match arguments::parse(&given) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(explain_usage(&given, &error)),
    };
    let voice = Voice::new(arguments.everywhere.json);
    let outcome = run(arguments.command, voice);
    ExitCode::from(outcome.unwrap_or_else(|failure| {
        voice.failure(&failure);
        failure.status
    }))
}

fn run(command: Commands, voice: Voice) -> Outcome {
    // `serve` asks its configuration; the other two hold nothing that is secret, and are what one would trace.
    if !matches!(
        command,
        Commands::Serve(_) | Commands::Worker(_) | Commands::Sim(_) | Commands::Bench(_)
    ) {
        machine::keep_memory_private()?;
    }
    match command {
        Commands::Serve(args) => machine::block_on_all_cores(serve::run(args, voice)),
        Commands::Worker(args) => machine::block_on_all_cores(serve::worker(args, voice)),
        Commands::Init(args) => machine::block_on(init::run(args, voice)),
        Commands::Doctor(args) => machine::block_on(doctor::run(args, voice)),
        Commands::Db(args) => machine::block_on(db::run(args, voice)),
        Commands::Key(args) => machine::block_on(key::run(args, voice)),
        Commands::Backup(args) => machine::block_on(backup::run(args, voice)),
        Commands::Restore(args) => machine::block_on(backup::restore(args, voice)),
        Commands::Bench(args) => machine::block_on_all_cores(bench::run(args, voice)),
        Commands::Apple(args) => machine::block_on(apple::run(args, voice)),
        Commands::Code(args) => code::run(args, voice),
        Commands::Devices(args) => machine::block_on(devices::run(args, voice)),
        Commands::Reveal(args) => machine::block_on(reveal::run(args, voice)),
        Commands::Export(args) => machine::block_on(export::run(args, voice)),
        Commands::Unlock(args) => machine::block_on(unlock::run(args, voice)),
        Commands::Bulk(args) => machine::block_on(bulk::run(args, voice)),
        Commands::Unlocks(args) => machine::block_on(unlocks::run(args, voice)),
        Commands::Lock(args) => machine::block_on(lock::run(args, voice)),
        Commands::Locks(args) => machine::block_on(locks::run(args, voice)),
        Commands::LockStatus(args) => machine::block_on(lock_status::run(args, voice)),
        Commands::Coverage(args) => machine::block_on(coverage::run(args, voice)),
        Commands::Organisations(args) => machine::block_on(organisations::run(args, voice)),
        Commands::Mdm(args) => machine::block_on(mdm::run(args, voice)),
        Commands::PushCertificate(args) => machine::block_on(push_certificate::run(args, voice)),
        Commands::Dep(args) => machine::block_on(dep::run(args, voice)),
        Commands::BusinessApi(args) => machine::block_on(business_api::run(args, voice)),
        Commands::Sim(args) => machine::block_on(sim::run(args, voice)),
        Commands::Audit(args) => machine::block_on(audit::run(args, voice)),
        Commands::Join(args) => machine::block_on(sign_in::join(args, voice)),
        Commands::SignIn(args) => machine::block_on(sign_in::sign_in(args, voice)),
        Commands::SignOut(args) => machine::block_on(sign_in::sign_out(args, voice)),
        Commands::Password(args) => machine::block_on(credentials::password(args, voice)),
        Commands::SecondFactor(args) => machine::block_on(credentials::second_factor(args, voice)),
        Commands::Sessions(args) => machine::block_on(credentials::sessions(args, voice)),
        Commands::Approvals(args) => machine::block_on(approvals::run(args, voice)),
        Commands::Policies(args) => machine::block_on(approvals::policies(args, voice)),
        Commands::Emergencies(args) => machine::block_on(approvals::emergencies(args, voice)),
        Commands::Notices(args) => machine::block_on(notices::run(args, voice)),
        Commands::People(args) => machine::block_on(people::run(args, voice)),
        Commands::Token(args) => machine::block_on(token::run(args, voice)),
    }
}

/// Prints what clap has to say: help, the version, or what is wrong. It repeats the arguments, so a code among them keeps
/// it from speaking (R23).
fn explain_usage(given: &[OsString], error: &clap::Error) -> u8 {
    let holds_a_code = given
        .iter()
        .filter_map(|argument| argument.to_str())
        .flat_map(|argument| argument.split('='))
        .any(|part| BypassCode::parse_lenient(part).is_ok());
    let json = given.iter().any(|argument| argument == "--json");
    if error.use_stderr() && holds_a_code {
        let failure = Failure::usage("there is a bypass code among the arguments, where other users of this machine can see it")
            .hint("put it into a file or pipe it to standard input; then remove it from your shell's history");
        Voice::new(json).failure(&failure);
    } else if error.use_stderr() && json {
        let told = error.render().to_string();
        let what = told.split("\n\n").next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(what);
        let failure = Failure::usage(what).hint("--help shows how it is used");
        Voice::new(json).failure(&failure);
    } else {
        // Nothing is left to do when the terminal is gone.
        let _ = error.print();
    }
    u8::try_from(error.exit_code()).unwrap_or(voice::USAGE)
}
