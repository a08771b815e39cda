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

/// What a client has to know, and every control, for `--help`.
const CONTROLS: &str = "\
Addresses, on standard output:
  unlock      in place of https://deviceservices-external.apple.com; it wants a client certificate
  enrolment   in place of https://mdmenrollment.apple.com
  business    in place of https://api-business.apple.com and https://api-school.apple.com
  tokens      in place of https://account.apple.com/auth/oauth2/v2/token, which stays the `aud`
  controls    what follows; bodies are JSON, `?` may be left out, other keys are refused
A client trusts ca.pem alone: from --out, or from the controls.

Devices, locks and push certificates:
  POST /devices  {serial, product_type, imei?, imei2?, meid?, lock?: {kind: user|mdm, code or hash}}
  GET /devices/{serial}
  DELETE /devices/{serial}/lock  as if the portal or its user had turned it off
  POST /push-certificates  {topic?, days?, issuer?: trusted|chain|chainless|unknown, rsa?}
  GET /ca.pem
Enrolment service:
  POST /dep/tokens  {server_name?}; it answers with the token
  PATCH /dep/tokens/{consumer_key}  {expired?: true, terms_signed?, access_denied?}; a token that
      has ended stays so
  POST /dep/tokens/{consumer_key}/file  {certificate_pem, cipher?: aes128|triple_des,
      message_marks?, width?, crlf?}; it answers with the .p7m file
  POST /dep/tokens/{consumer_key}/devices  {serial_number, model?, device_family?, imei?, ...}
  DELETE /dep/tokens/{consumer_key}/devices/{serial}
  PUT /dep/lock-refusals/{serial}  {response_status}: any word, instead of a lock
  DELETE /dep/lock-refusals/{serial}
  POST /dep/expire  {sessions?, cursors?}
Business and School Manager API:
  POST /business-manager/accounts  {kind?: business|school}; it answers with IDs and private key
  PATCH /business-manager/accounts/{client_id}  {denied}
  POST /business-manager/devices  {serialNumber, productType?, imei?, ...}
  DELETE /business-manager/devices/{serial}
  PUT /business-manager/devices/{serial}/lock-status  \"truth\", \"more_than_truth\", \"missing\",
      \"internal_state\", {exactly: {is_locked?, lock_type?}}, {other: WORD}, {about_another: SERIAL}
  PUT /business-manager/stale-for  {seconds}: how old the status is that is told
  POST /business-manager/expire-tokens
Faults, for the next requests that fit, and journals, without any secret:
  POST /faults, POST /dep/faults, POST /business-manager/faults  {kind, path?, serial?, times?,
      milliseconds?, status?, retry_after?: seconds or text, location?, body?, committing?}; the
      kinds: delay (wants milliseconds), status and echo (want a status), drop_before,
      drop_after_commit, garbage, huge_body, empty_body, xml_body
  DELETE /faults, DELETE /dep/faults, DELETE /business-manager/faults
  GET /journal, GET /dep/journal, GET /business-manager/journal";

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
    ///
    /// A device that is to be locked is in Apple's table (POST /devices) and assigned to the server of a token (POST
    /// /dep/tokens/{consumer_key}/devices); to tell its status, the organisation owns it (POST /business-manager/devices).
    #[command(after_long_help = CONTROLS)]
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
