//! `lockwarden sim`: the fakes alone, for those who build an MDM or a client of Apple's service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::sim::apple::control::{Control, Controlled};
use ::sim::apple::{Apple, AppleOptions};
use ::sim::{BusinessManager, BusinessManagerOptions, Dep, DepOptions, SIM_TOPIC, StartError};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::voice::{DONE, Failure, Outcome, Voice};
use crate::{machine, private_file};

/// Serve fakes of Apple's services, for tests of any program
#[derive(Args)]
pub(crate) struct SimArgs {
    #[command(subcommand)]
    command: SimCommand,
}

#[derive(Subcommand)]
enum SimCommand {
    /// Serve strict fakes of Apple's services over TLS, with controls over plain HTTP
    ///
    /// Three services share one table of locks: escrowKeyUnlock over mutual TLS; device enrolment, where an organisation turns
    /// the lock on; and the Business and School Manager API, which tells the lock status. Devices, locks, faults, push
    /// certificates, server tokens and API accounts are added through the controls; the journals are read there. They know no
    /// device at first and forget everything when they end. All addresses are loopback addresses.
    Apple(AppleArgs),
}

#[derive(Args)]
struct AppleArgs {
    /// Where the fake unlock service listens; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the fake enrolment service listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    dep_listen: SocketAddr,
    /// Where the fake Business and School Manager API listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    business_listen: SocketAddr,
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
    for listen in [args.listen, args.dep_listen, args.business_listen] {
        if !listen.ip().is_loopback() {
            return Err(Failure::usage(format!(
                "{listen} is not a loopback address: a fake is for its own machine only"
            )));
        }
    }
    let options = AppleOptions {
        listen: args.listen,
        when_not_locked: args.when_not_locked,
        ..AppleOptions::default()
    };
    let apple = Apple::start(options).await.map_err(not_started)?;
    let dep_options = DepOptions {
        listen: args.dep_listen,
        ..DepOptions::default()
    };
    let dep = Dep::start(&apple, dep_options).await.map_err(not_started)?;
    let business_options = BusinessManagerOptions {
        listen: args.business_listen,
        ..BusinessManagerOptions::default()
    };
    let business = BusinessManager::start(&apple, business_options)
        .await
        .map_err(not_started)?;
    let controlled = Controlled {
        apple: apple.clone(),
        dep: Some(dep.clone()),
        business_manager: Some(business.clone()),
    };
    let control = Control::start(controlled, args.control)
        .await
        .map_err(not_started)?;
    if let Some(folder) = &args.out {
        write_out(&apple, folder)?;
    }
    let (url, dep_url, control_url) = (apple.url(), dep.url(), control.url());
    let (business_url, token_url) = (business.api_url(), business.token_url());
    let told = json!({
        "url": url,
        "dep_url": dep_url,
        "business_manager_url": business_url,
        "token_url": token_url,
        "control_url": control_url,
    });
    voice.data(&told, || {
        format!(
            "unlock     {url}\nenrolment  {dep_url}\nbusiness   {business_url}\ntokens     {token_url}\ncontrols   {control_url}"
        )
    })?;
    voice.talk("fakes: no request reaches Apple. Interrupt them (Ctrl-C) to end them.");
    machine::Signals::new()?.end().await;
    business.stop().await;
    dep.stop().await;
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
