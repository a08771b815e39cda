//! `lockwarden sim`: the fakes alone, for those who build an MDM or a client of Apple's service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::sim::apple::control::Control;
use ::sim::apple::{Apple, AppleOptions};
use ::sim::{SIM_TOPIC, StartError};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{machine, private_file};

/// Serve a fake of Apple's service, for tests of any program
#[derive(Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    command: SimCommand,
}

#[derive(Subcommand)]
enum SimCommand {
    /// Serve a strict fake of Apple's escrowKeyUnlock over mutual TLS, with controls over plain HTTP
    ///
    /// Devices, locks, faults and push certificates are added through the controls; the journal is read there. It knows no
    /// device at first and forgets everything when it ends. Both addresses are loopback addresses.
    Apple(AppleArgs),
}

#[derive(Args)]
struct AppleArgs {
    /// Where the fake Apple listens; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the controls listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// A folder to write ca.pem (what a client must trust) and push-certificate.pem (a good identity, with its key) to
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// What a device answers whose lock is off; nobody knows what Apple does
    #[arg(long, value_name = "STATUS", default_value_t = 404, value_parser = clap::value_parser!(u16).range(200..=599))]
    when_not_locked: u16,
}

/// Runs the command until it is interrupted.
pub(crate) async fn run(args: SimArgs, voice: Voice) -> Outcome {
    let SimCommand::Apple(args) = args.command;
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "{} is not a loopback address: a fake is for its own machine only",
            args.listen
        )));
    }
    let options = AppleOptions {
        listen: args.listen,
        when_not_locked: args.when_not_locked,
        ..AppleOptions::default()
    };
    let apple = Apple::start(options).await.map_err(not_started)?;
    let control = Control::start(apple.clone(), args.control)
        .await
        .map_err(not_started)?;
    if let Some(folder) = &args.out {
        write_out(&apple, folder)?;
    }
    let (url, control_url) = (apple.url(), control.url());
    voice.data(&json!({ "url": url, "control_url": control_url }), || {
        format!("apple     {url}\ncontrols  {control_url}")
    })?;
    voice.talk("a fake: no request reaches Apple. Interrupt it (Ctrl-C) to end it.");
    machine::Signals::new()?.end().await;
    apple.stop().await;
    Ok(DONE)
}

/// A fake that did not start.
fn not_started(error: StartError) -> Failure {
    Failure::new(format!("the fake did not start: {error}"))
        .hint("is another program listening there? Port 0 takes any free one")
}

fn write_out(apple: &Apple, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("{} cannot be made: {error}", folder.display())))?;
    let identity = apple.push_certificate(SIM_TOPIC).bundle_pem();
    private_file::replace(&folder.join("ca.pem"), &apple.ca_pem())?;
    private_file::replace(&folder.join("push-certificate.pem"), &identity)
}
