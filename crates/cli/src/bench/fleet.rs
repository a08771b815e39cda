//! A fleet of any size: how long it takes to record, how much room it takes, and how fast its devices are found.

use ::sim::{NanoMdm, NanoMdmOptions};
use activation_lock::bypass_code::BypassCode;
use activation_lock::codes::CodeText;
use activation_lock::observation::{
    Authenticate, CommandReport, DeviceInformation, EnrollmentKind, Event, Observation,
    ReportStatus, ReportedCode, TokenUpdate,
};
use activation_lock::time::Timestamp;
use data_encoding::BASE32_NOPAD;
use escrow::connections::ConnectionRef;
use escrow::permit::Read;
use escrow::record::Incoming;
use tokio::task::JoinSet;

use super::load::Connection;
use super::webhooks;
use super::*;
use crate::owner::{self, Owner};
use crate::voice;

/// Devices that are recorded at the same time.
const AT_ONCE: u64 = 512;
/// Questions of each kind.
const QUESTIONS: u64 = 1_000;
/// In the order of their kind, devices have these names and products.
const NAMES: [&str; 8] = [
    "anna", "boris", "chloe", "dimitri", "elena", "farid", "greta", "hugo",
];
const PRODUCTS: [&str; 3] = ["iPad14,3", "iPhone15,2", "Mac14,2"];

pub(super) async fn measure(
    place: &Place,
    devices: u64,
    seconds: u64,
    voice: Voice,
) -> Result<(), Broken> {
    let escrow = place.vault("fleet").await?;
    let mdm = NanoMdm::start(NanoMdmOptions::default()).await?;
    let owner = Owner::new(&escrow, "bench", "Bench").await?;
    let key = owner
        .connect("fleet", &mdm, owner::secret(), Some(1.0))
        .await?;
    let token = owner.token("bench").await?;
    let permit = owner.permit::<Read>("fleet").await?;
    let view = escrow.connections().get(&permit, "fleet").await?;
    let view = view.ok_or("the connection is there")?;
    let connection = ConnectionRef {
        organisation: view.organisation,
        id: view.id,
    };
    show(&record(&escrow, &connection, devices).await?, voice)?;
    let bytes = escrow.database_bytes().await?;
    let size = Size {
        what: "database",
        devices,
        bytes,
        bytes_a_device: bytes as f64 / devices as f64,
        resident_mib: resident_mib(),
    };
    voice
        .data(&size, || {
            format!(
                "{:<18} {:>8.0} MiB, {:.0} bytes a device; {:.0} MiB of memory in use",
                size.what,
                size.bytes as f64 / f64::from(1 << 20),
                size.bytes_a_device,
                size.resident_mib
            )
        })
        .map_err(|failure| failure.to_string())?;

    let servers = place.serve("fleet", &escrow, settings()).await?;
    let addresses = addresses(&servers);
    let mut server = Connection::new(addresses[0]).await?;
    for (what, path) in questions() {
        let began = lifecycle::clock().now();
        let mut took = Vec::new();
        for number in 0..QUESTIONS {
            // Anybody of the fleet, without an order.
            let device = Device::of(number.wrapping_mul(7_919_000_017) % devices);
            let request = format!(
                "GET /v1{} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n\r\n",
                path(&device),
                token.expose()
            );
            let (status, milliseconds) = server.ask(request.as_bytes()).await?;
            if status != 200 {
                return Err(format!("{what} got {status}").into());
            }
            took.push(milliseconds);
        }
        let figure = Figure::of_answers(what, 1, seconds_since(began), took);
        show(&figure, voice)?;
    }
    let figure = webhooks::send(&addresses, "fleet", &key, 256, seconds).await?;
    show(&figure, voice)?;
    stop(servers).await;
    mdm.stop().await;
    Ok(())
}

fn show(figure: &Figure, voice: Voice) -> Result<(), Broken> {
    Ok(tell(figure, voice).map_err(|failure| failure.to_string())?)
}

#[derive(Serialize)]
struct Size {
    what: &'static str,
    devices: u64,
    bytes: u64,
    bytes_a_device: f64,
    /// Of this process, which is the server, the load and the fake MDM.
    resident_mib: f64,
}

/// What the system says of this process; 0 where it does not.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<f64>()
            .ok()
    });
    kib.unwrap_or(0.0) / 1024.0
}

/// What is asked, and the path that asks it about a device.
type Question = (&'static str, Box<dyn Fn(&Device) -> String>);

fn questions() -> Vec<Question> {
    vec![
        (
            "search serial",
            Box::new(|of| format!("/devices?search={}", &of.serial[..7])),
        ),
        (
            "search name",
            Box::new(|of| format!("/devices?search={}", of.owner())),
        ),
        (
            "search number",
            Box::new(|of| format!("/devices?search={}", of.number)),
        ),
        (
            "search product",
            Box::new(|of| format!("/devices?search={}", &of.product()[..5])),
        ),
        (
            "search nothing",
            Box::new(|of| format!("/devices?search=x{}x", of.number)),
        ),
        (
            "search a gap",
            Box::new(|of| format!("/devices?search={}&coverage=missing", of.owner())),
        ),
        (
            "list gaps",
            Box::new(|_| "/devices?coverage=missing".to_owned()),
        ),
        (
            "list product",
            Box::new(|of| format!("/devices?product_type={}", of.product())),
        ),
        (
            "list connection",
            Box::new(|_| "/devices?connection=fleet".to_owned()),
        ),
        (
            "device page",
            Box::new(|of| format!("/devices/{}", of.serial)),
        ),
        ("coverage", Box::new(|_| "/coverage".to_owned())),
    ]
}

/// A device of the fleet.
struct Device {
    number: u64,
    serial: String,
    udid: String,
}

impl Device {
    fn of(number: u64) -> Self {
        // Odd numbers have an inverse: no two devices get the same.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xff_ffff_ffff;
        let bytes = spread.to_be_bytes();
        Self {
            number,
            serial: format!("F{}", BASE32_NOPAD.encode(&bytes[3..])),
            udid: format!("{spread:010X}-{number:016X}"),
        }
    }

    fn owner(&self) -> &'static str {
        NAMES[(self.number % NAMES.len() as u64) as usize]
    }

    fn product(&self) -> &'static str {
        PRODUCTS[(self.number % PRODUCTS.len() as u64) as usize]
    }

    /// It enrols, says who it is and, but for one in twenty, tells its code.
    fn events(&self, at: Timestamp) -> Result<Vec<Event>, Broken> {
        let serial = self.serial.parse()?;
        let mut events = vec![
            Event::Authenticate(Authenticate {
                serial: Some(serial),
                udid: Some(self.udid.clone()),
                product_type: Some(self.product().parse()?),
                topic: Some("com.apple.mgmt.External.bench".to_owned()),
                ..Authenticate::default()
            }),
            Event::TokenUpdate(TokenUpdate {
                udid: Some(self.udid.clone()),
                awaiting_configuration: Some(true),
                tally: Some(1),
                ..TokenUpdate::default()
            }),
        ];
        let report = |what: &str| CommandReport {
            command: Some(format!("{}-{what}-{}", self.udid, at.0)),
            status: ReportStatus::Acknowledged,
            errors: Vec::new(),
            bypass_code: ReportedCode::Absent,
            device_information: None,
            security_info: None,
            failed_settings: None,
        };
        let told = DeviceInformation {
            device_name: Some(format!("{}'s {}", self.owner(), self.number)),
            supervised: Some(true),
            ..DeviceInformation::default()
        };
        events.push(Event::Report(CommandReport {
            device_information: Some(Box::new(told)),
            ..report("who")
        }));
        if !self.number.is_multiple_of(20) {
            let mut raw = [0; 16];
            raw[8..].copy_from_slice(&self.number.to_be_bytes());
            let text = BypassCode::from_raw(raw).to_text();
            let text = CodeText::new(text.to_string()).ok_or("a code is not blank")?;
            events.push(Event::Report(CommandReport {
                bypass_code: ReportedCode::Code(text),
                ..report("code")
            }));
        }
        Ok(events)
    }
}

/// Puts the fleet on record, without HTTP.
async fn record(
    escrow: &Escrow,
    connection: &ConnectionRef,
    devices: u64,
) -> Result<Figure, Broken> {
    let bar = voice::bar(devices);
    let began = lifecycle::clock().now();
    let (mut count, mut tasks) = (0, JoinSet::new());
    for number in 0..devices {
        while tasks.len() as u64 >= AT_ONCE {
            let ended = tasks.join_next().await.ok_or("a task ends")?;
            count += ended.map_err(|error| error.to_string())??;
        }
        let (escrow, connection, bar) = (escrow.clone(), connection.clone(), bar.clone());
        tasks.spawn(async move {
            let device = Device::of(number);
            let at = lifecycle::clock().now();
            let mut events = 0;
            for event in device.events(at).map_err(|error| error.to_string())? {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(&number.to_be_bytes());
                digest[8] = events;
                let incoming = Incoming {
                    connection: connection.clone(),
                    digest,
                    observation: Observation {
                        enrollment: device.udid.clone(),
                        kind: EnrollmentKind::Device,
                        at: at.plus(Duration::from_millis(events.into())),
                        event,
                    },
                };
                escrow
                    .record(incoming)
                    .await
                    .map_err(|error| error.to_string())?;
                events += 1;
            }
            bar.inc(1);
            Ok::<u64, String>(events.into())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        count += ended.map_err(|error| error.to_string())??;
    }
    bar.finish_and_clear();
    let seconds = seconds_since(began);
    Ok(Figure {
        what: "events recorded",
        connections: AT_ONCE as u32,
        count,
        seconds,
        per_second: count as f64 / seconds,
        median_ms: None,
        worst_in_a_hundred_ms: None,
        worst_in_a_thousand_ms: None,
    })
}
