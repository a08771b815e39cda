//! One device: who it is, its codes, its lock, what happened to it, and the one thing to do next.

use activation_lock::device::{ProductType, SerialNumber};
use activation_lock::explain::{self, Explanation};
use escrow::codes::CodeView;
use escrow::commands::Refreshed;
use escrow::devices::{Corrections, DeviceView};
use escrow::permit::{Edit, Permit, Read, Refresh};

use super::devices::Badge;
use super::*;
use crate::http::api::{ConnectionNames, doubt, standing_in_words, window_in_words};
use crate::http::extract::Path;

#[derive(Template)]
#[template(path = "device.html")]
pub(super) struct DevicePage {
    frame: Frame,
    device: DeviceView,
    connection: Option<String>,
    badge: Badge,
    window: Option<Explanation>,
    ours: Explanation,
    apple: Option<Explanation>,
    /// An unlock or lock that is under way.
    under_way: Option<(&'static str, String)>,
}

impl DevicePage {
    /// What people call such a device.
    fn marketing_name(&self) -> Option<&'static str> {
        let product = self.device.summary.product_type.as_ref()?;
        product.marketing_name()
    }

    fn serial(&self) -> &str {
        self.device.summary.serial.as_str()
    }

    fn link(&self, rest: &str) -> String {
        format!("/devices/{}{rest}{}", self.serial(), self.frame.within)
    }

    /// Whether it is listed by a server of Apple's enrolment service, without which Apple locks nothing.
    fn can_be_locked(&self) -> bool {
        !self.device.listings.is_empty() && !self.device.lock.may_be_on()
    }

    fn can_be_unlocked(&self) -> bool {
        self.device.identity.is_some() && !self.device.codes.is_empty()
    }
}

/// A code as its card shows it.
pub(super) fn made_by(code: &CodeView) -> &'static str {
    use activation_lock::codes::CodeKind;
    match code.kind {
        CodeKind::Device => "Made by the device",
        CodeKind::Server => "Made here, for a lock of the organisation",
        CodeKind::Unknown => "Nobody said who made it; it is tried as both",
    }
}

pub(super) fn came_by(code: &CodeView) -> &'static str {
    use activation_lock::codes::CodeOrigin;
    match code.origin {
        CodeOrigin::Device => "reported by the device",
        CodeOrigin::Made => "made here",
        CodeOrigin::Import => "imported",
        CodeOrigin::Person => "typed by a person",
    }
}

pub(super) fn doubt_of(code: &CodeView) -> Option<Explanation> {
    code.doubt.as_deref().and_then(doubt)
}

/// A stable word as one reads it.
pub(super) fn words(word: &str) -> String {
    word.replace(['.', '_'], " ")
}

/// A device, and whose it is.
pub(super) async fn of(
    visitor: &Visitor,
    serial: &SerialNumber,
) -> Result<(OrganisationId, DeviceView), Turned> {
    let (organisation, _, device) = view(visitor, serial).await?;
    Ok((organisation, device))
}

async fn view(
    visitor: &Visitor,
    serial: &SerialNumber,
) -> Result<(OrganisationId, Permit<Read>, DeviceView), Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation_of(app, serial).await?;
    let actor = &visitor.caller.actor;
    let subject = format!("device {serial}");
    let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, subject).await?;
    let device = app.escrow.devices().get(&permit, serial).await?;
    let device = device.ok_or_else(Problem::unknown_device)?;
    Ok((organisation, permit, device))
}

pub(super) async fn show(visitor: Visitor, Path(serial): Path<SerialNumber>) -> Shown<DevicePage> {
    let (organisation, permit, device) = view(&visitor, &serial).await?;
    let names = ConnectionNames::read(&visitor.app, &permit).await?;
    let frame = visitor.frame(serial.to_string(), &organisation).await?;
    let status = device.status.last.as_ref();
    let unlock = device.unlocks.first().filter(|one| one.ended_at.is_none());
    let unlock = unlock.map(|one| {
        (
            "See the unlock that is under way",
            format!("/unlocks/{}", one.id),
        )
    });
    let lock = device.locks.first().filter(|one| one.ended_at.is_none());
    let lock = lock.map(|one| {
        (
            "See the lock that is under way",
            format!("/locks/{}", one.id),
        )
    });
    Ok(Page(
        StatusCode::OK,
        DevicePage {
            badge: Badge::of(&device.summary),
            connection: device.summary.connection.as_deref().map(|id| names.of(id)),
            window: window_in_words(&device.summary, frame.now),
            ours: standing_in_words(&device.lock),
            apple: status.map(|said| explain::lock::status(said.status.known())),
            under_way: unlock.or(lock),
            frame,
            device,
        },
    ))
}

pub(super) async fn refresh(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
) -> Result<Response, Turned> {
    let (organisation, _, _) = view(&visitor, &serial).await?;
    let app = &visitor.app;
    let actor = &visitor.caller.actor;
    let subject = format!("device {serial}");
    let permit: Permit<Refresh> = app.escrow.authorise(actor, &organisation, subject).await?;
    match app.escrow.commands().refresh(&permit, &serial).await? {
        Refreshed::Asked => Ok(see(&visitor.back(&format!("/devices/{serial}"), "asked"))),
        Refreshed::NotEnrolled => Err(crate::http::api::not_enrolled().into()),
    }
}

pub(super) async fn set_product_type(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    form: Form,
) -> Result<Response, Turned> {
    let (organisation, _, _) = view(&visitor, &serial).await?;
    let app = &visitor.app;
    let actor = &visitor.caller.actor;
    let subject = format!("device {serial}");
    let permit: Permit<Edit> = app.escrow.authorise(actor, &organisation, subject).await?;
    let product: ProductType = crate::http::extract::parsed(form.text("product_type").trim())?;
    let set = Corrections {
        product_type: Some(product),
        ..Corrections::default()
    };
    app.escrow.devices().correct(&permit, &serial, &set).await?;
    Ok(see(&visitor.back(&format!("/devices/{serial}"), "set")))
}
