//! Unlocks a second: devices whose one code is right, all in the queue before the server starts.

use ::sim::apple::{AppleDevice, AppleOptions};
use ::sim::{Apple, SIM_TOPIC};
use activation_lock::bypass_code::BypassCode;
use activation_lock::codes::{CodeKind, CodeText};
use activation_lock::device::SerialNumber;
use apple::transport::ExtraAuthorities;
use escrow::codes::TypedCode;
use escrow::devices::Corrections;
use escrow::operations::{Kind, NewUnlock};
use escrow::permit::{Edit, Unlock};

use super::*;
use crate::owner::Owner;

const PRODUCT: &str = "iPad14,3";
/// How often it is looked whether all are done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Devices prepared at once.
const AT_ONCE: usize = 64;

pub(super) async fn measure(place: &Place, devices: u32, in_flight: u32) -> Result<Figure, Broken> {
    let escrow = place.vault("unlocks").await?;
    let apple = Apple::start(AppleOptions::default()).await?;
    {
        let owner = Arc::new(Owner::new(&escrow, "bench", "Bench").await?);
        owner.certify(&apple.push_certificate(SIM_TOPIC)).await?;
        for first in (0..devices).step_by(AT_ONCE) {
            let some = first..devices.min(first + AT_ONCE as u32);
            let prepared = some.map(|number| prepare(&escrow, &owner, &apple, number));
            futures_util::future::try_join_all(prepared).await?;
        }
    }
    let mut settings = Settings {
        in_flight,
        ..settings()
    };
    settings.apple.origin = apple.url().parse()?;
    settings.apple.authorities = ExtraAuthorities::from_pem(apple.ca_pem().as_bytes())?;
    let began = lifecycle::clock().now();
    let servers = place.serve("unlocks", &escrow, settings).await?;
    while escrow.operations().queue(Kind::Unlock).await?.live > 0 {
        machine::pause(LOOK_EVERY).await;
    }
    let seconds = seconds_since(began);
    let unlocked = apple.journal().count();
    stop(servers).await;
    apple.stop().await;
    if unlocked != u64::from(devices) {
        return Err(format!("{unlocked} calls for {devices} devices").into());
    }
    Ok(Figure {
        what: "unlocks",
        connections: in_flight,
        count: unlocked,
        seconds,
        per_second: unlocked as f64 / seconds,
        median_ms: None,
        worst_in_a_hundred_ms: None,
        worst_in_a_thousand_ms: None,
    })
}

/// A locked device whose code is held, and a wish to unlock it.
async fn prepare(
    escrow: &Escrow,
    owner: &Owner<'_>,
    apple: &Apple,
    number: u32,
) -> Result<(), Broken> {
    let serial: SerialNumber = format!("BENCH{number:07}").parse()?;
    let mut raw = [0; 16];
    raw[..4].copy_from_slice(&number.to_be_bytes());
    let text = BypassCode::from_raw(raw).to_text();
    apple.add_device(AppleDevice {
        serial: serial.to_string(),
        product_type: PRODUCT.to_owned(),
        imei: None,
        imei2: None,
        meid: None,
    });
    apple.user_lock(serial.as_str(), &text)?;
    let edit = owner.permit::<Edit>(serial.as_str()).await?;
    let set = Corrections {
        product_type: Some(PRODUCT.parse()?),
        ..Corrections::default()
    };
    escrow.devices().correct(&edit, &serial, &set).await?;
    let typed = TypedCode {
        serial: serial.clone(),
        text: CodeText::new(text.to_string()).ok_or("a code is not blank")?,
        kind: CodeKind::Device,
        note: None,
    };
    escrow.codes().add_typed(&edit, typed).await?;
    let unlock = NewUnlock {
        serial: serial.clone(),
        reason: "bench".to_owned(),
        requester: "bench@example.org".to_owned(),
        insists: false,
        urgent: false,
        idempotency: None,
    };
    let permit = owner.permit::<Unlock>(serial.as_str()).await?;
    escrow.operations().enqueue(&permit, unlock).await?;
    Ok(())
}
