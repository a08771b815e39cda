//! Webhooks a second: devices enrol and tell a code, an event a third each, on so many connections at once.

use ::sim::{NanoMdm, NanoMdmOptions};
use activation_lock::bypass_code::BypassCode;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;

use super::load::Connection;
use super::*;
use crate::owner::{self, Owner};

/// Commands go out at this rate only, so that the webhooks alone are measured.
const COMMANDS_A_SECOND: f64 = 1.0;

pub(super) async fn measure(
    place: &Place,
    connections: u32,
    seconds: u64,
) -> Result<Figure, Broken> {
    let vault = format!("webhooks-{connections}");
    let escrow = place.vault(&vault).await?;
    let name = format!("bench-{connections}");
    let api_key = owner::secret();
    let mdm = NanoMdm::start(NanoMdmOptions {
        api_key: api_key.to_string(),
        ..NanoMdmOptions::default()
    })
    .await?;
    let owner = Owner::new(&escrow, "bench", "Bench").await?;
    let key = owner
        .connect(&name, &mdm, api_key, Some(COMMANDS_A_SECOND))
        .await?;
    let servers = place.serve(&vault, &escrow, settings()).await?;
    let figure = send(&addresses(&servers), &name, &key, connections, seconds).await?;
    stop(servers).await;
    mdm.stop().await;
    Ok(figure)
}

/// Sends webhooks of devices that enrol, on so many connections at once, to servers that know the MDM by this name and key.
pub(super) async fn send(
    servers: &[SocketAddr],
    name: &str,
    key: &str,
    connections: u32,
    seconds: u64,
) -> Result<Figure, Broken> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());

    let clock = lifecycle::clock();
    let began = clock.now();
    let until = began.plus(Duration::from_secs(seconds));
    let mut senders = JoinSet::new();
    for (number, &address) in (0..connections).zip(servers.iter().cycle()) {
        let (clock, key, name) = (clock.clone(), key.clone(), name.to_owned());
        senders.spawn(async move {
            let mut connection = Connection::new(address).await?;
            let mut took = Vec::new();
            'devices: for device in 0.. {
                for event in events(connections, number, device) {
                    let request = request(&name, &key, &event);
                    if clock.now() >= until {
                        break 'devices;
                    }
                    let (status, milliseconds) = connection.ask(&request).await?;
                    if status != 200 {
                        return Err(std::io::Error::other(format!("a webhook got {status}")));
                    }
                    took.push(milliseconds);
                }
            }
            Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(sender) = senders.join_next().await {
        took.extend(sender??);
    }
    let seconds = seconds_since(began);

    Ok(Figure::of_answers("webhooks", connections, seconds, took))
}

/// What one device sends: Authenticate, TokenUpdate, and an answer with its code.
fn events(run: u32, connection: u32, device: u64) -> [String; 3] {
    let udid = format!("BEEF{run:04X}-{connection:04X}-4000-8000-{device:012X}");
    let serial = format!("B{run:03X}{connection:03X}{device:05X}");
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&connection.to_be_bytes());
    raw[4..8].copy_from_slice(&run.to_be_bytes());
    raw[8..].copy_from_slice(&device.to_be_bytes());
    let code = BypassCode::from_raw(raw).to_text();
    let now = time::OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(lifecycle::clock().now().0) * 1_000_000,
    )
    .ok()
    .and_then(|now| {
        now.format(&time::format_description::well_known::Rfc3339)
            .ok()
    })
    .unwrap_or_default();
    let check_in = |kind: &str, keys: &str, tally: &str| {
        let payload = plist(&format!(
            "<key>MessageType</key><string>{kind}</string><key>UDID</key><string>{udid}</string>\
             <key>Topic</key><string>com.apple.mgmt.External.bench</string>{keys}"
        ));
        format!(
            r#"{{"topic":"mdm.{kind}","created_at":"{now}","checkin_event":{{"udid":"{udid}",{tally}"raw_payload":"{payload}","ids":{{"id":"{udid}","type":"Device"}}}}}}"#
        )
    };
    let authenticate = check_in(
        "Authenticate",
        &format!(
            "<key>SerialNumber</key><string>{serial}</string><key>ProductName</key><string>iPad14,3</string>\
             <key>OSVersion</key><string>26.1</string>"
        ),
        "",
    );
    let token = check_in(
        "TokenUpdate",
        "<key>PushMagic</key><string>magic</string><key>Token</key><data>dG9rZW4=</data>",
        r#""token_update_tally":1,"#,
    );
    let command = format!("{udid}-code");
    let payload = plist(&format!(
        "<key>UDID</key><string>{udid}</string><key>Status</key><string>Acknowledged</string>\
         <key>CommandUUID</key><string>{command}</string>\
         <key>ActivationLockBypassCode</key><string>{}</string>",
        *code
    ));
    let report = format!(
        r#"{{"topic":"mdm.Connect","created_at":"{now}","acknowledge_event":{{"udid":"{udid}","status":"Acknowledged","command_uuid":"{command}","raw_payload":"{payload}","ids":{{"id":"{udid}","type":"Device"}}}}}}"#
    );
    [authenticate, token, report]
}

fn plist(keys: &str) -> String {
    STANDARD.encode(format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd"><plist version="1.0"><dict>{keys}</dict></plist>"#
    ))
}

fn request(name: &str, key: &hmac::Key, body: &str) -> Vec<u8> {
    let signature = STANDARD.encode(hmac::sign(key, body.as_bytes()));
    format!(
        "POST /v1/hooks/{name} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         x-hmac-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
