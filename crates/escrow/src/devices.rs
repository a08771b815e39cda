//! Devices: who they are, how they stand with their code, and what happened to them.

use activation_lock::asking;
use activation_lock::codes::CodeId;
use activation_lock::device::{
    CellularIdentity, DeviceIdentity, IdentitySource, Imei, Meid, ProductType, SerialNumber,
};
use activation_lock::lock::OurLock;
use activation_lock::observation::{Authenticate, DeviceInformation};
use activation_lock::time::Timestamp;
use activation_lock::window;
use serde::Serialize;

use crate::codes::CodeView;
use crate::commands::Command;
use crate::coverage::CoverageState;
use crate::db::{Row, Tx, Value, params};
use crate::enrollments::{Epoch, EpochFacts, EpochState, OpenedBy};
use crate::ledger::{DeviceKey, Ledger, Told};
use crate::listing::{self, Listing};
use crate::lock_statuses::{self, StatusView};
use crate::locks::{self, LockStanding, LockSummary};
use crate::operations::{self, UnlockSummary};
use crate::permit::{Actor, Edit, OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, codes};

mod list;
mod purge;
mod timeline;

pub(crate) use purge::purged_at;
pub use purge::{PurgeProblem, Purged};

pub use timeline::TimelineEntry;
use timeline::{History, timeline};

/// A device as lists show it.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceSummary {
    /// The organisation that owns it.
    pub organisation: OrganisationId,
    /// The serial number.
    pub serial: SerialNumber,
    /// The product type; without it no unlock can be asked for.
    pub product_type: Option<ProductType>,
    /// `ModelName`.
    pub model_name: Option<String>,
    /// The name its user gave it.
    pub device_name: Option<String>,
    /// The operating system's version.
    pub os_version: Option<String>,
    /// The MDM connection it was last seen on.
    pub connection: Option<String>,
    /// Whether its code is held.
    pub coverage: CoverageState,
    /// Why not, in a stable word.
    pub coverage_reason: Option<String>,
    /// The 15 days of R9: `satisfied`, `unknown`, `open`, `closing` or `closed`.
    pub window: &'static str,
    /// When the window closes, where that is known.
    pub window_closes_at: Option<Timestamp>,
    /// Why its codes may have lost their use, such as `checked_out`.
    pub suspect: Option<String>,
    /// How the organisation's own lock on it stands (R20).
    pub lock: OurLock,
    /// When it was last heard of in an event that was recorded; polls are not.
    pub seen_at: Timestamp,
}

/// An epoch as a device's page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct EpochView {
    /// Its identifier.
    pub id: String,
    /// The MDM connection.
    pub connection: String,
    /// The MDM's name for the enrollment.
    pub enrollment: String,
    /// What opened it.
    pub opened_by: OpenedBy,
    /// When it was opened here.
    pub opened_at: Timestamp,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
    /// How it stands.
    pub state: EpochState,
    /// Why it stands so.
    pub state_reason: Option<String>,
    /// When a code was first observed in it.
    pub code_at: Option<Timestamp>,
    /// When it was last asked for a code.
    pub last_asked_at: Option<Timestamp>,
    /// Why it is not asked, if it is not (R10).
    pub not_asked: Option<asking::NotAsked>,
    /// Whether the lock was allowed before the code was had (R7).
    pub allowed_before_escrow: Option<activation_lock::guard::AllowedBeforeEscrow>,
    /// What is doubtful about a Mac's lock (T26).
    pub mac_warning: Option<activation_lock::guard::MacWarning>,
    /// What its answers told.
    pub facts: EpochFacts,
}

/// Everything about one device.
pub struct DeviceView {
    /// As in lists.
    pub summary: DeviceSummary,
    /// Exactly what will be sent to Apple; `None` without a product type.
    pub identity: Option<DeviceIdentity>,
    /// Where the IMEIs come from.
    pub cellular_source: Option<IdentitySource>,
    /// Where the product type comes from.
    pub product_source: Option<IdentitySource>,
    /// IMEIs and MEID, also without a product type.
    pub cellular: CellularIdentity,
    /// Its codes, oldest first, without their texts.
    pub codes: Vec<CodeView>,
    /// Its epochs, oldest first.
    pub epochs: Vec<EpochView>,
    /// Its newest commands, newest first.
    pub commands: Vec<Command>,
    /// Its unlocks, newest first.
    pub unlocks: Vec<UnlockSummary>,
    /// Its locks, newest first.
    pub locks: Vec<LockSummary>,
    /// How the organisation's own lock stands (R20).
    pub lock: LockStanding,
    /// Apple's own status of its lock, as far as it is known.
    pub status: StatusView,
    /// The servers of Apple's enrolment service that list it, or did.
    pub listings: Vec<Listing>,
    /// What happened to it, newest first.
    pub timeline: Vec<TimelineEntry>,
}

/// Which devices a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those with a word starting with this: in the serial number, the name, the product or the model.
    pub search: Option<String>,
    /// Only those of this state.
    pub coverage: Option<CoverageState>,
    /// Only those whose window closes within five days, no code being held.
    pub closing: bool,
    /// Only those of this MDM connection.
    pub connection: Option<String>,
    /// Only those of this product type.
    pub product_type: Option<String>,
    /// Only those on which our lock stands so.
    pub lock: Option<OurLock>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Give this as the cursor for the next page; `None` on the last.
    pub next: Option<String>,
}

/// Why a device cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// It is known in this organisation only.
    In(OrganisationId),
    /// No organisation within reach knows it.
    Nowhere,
    /// Several do, and one has to be named (R5).
    Several(Vec<OrganisationId>),
}

/// What a person sets by hand (R15); `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct Corrections {
    /// The product type.
    pub product_type: Option<ProductType>,
    /// IMEI of slot one.
    pub imei: Option<Imei>,
    /// IMEI of slot two.
    pub imei2: Option<Imei>,
    /// The MEID.
    pub meid: Option<Meid>,
}

/// Why the codes of a device are doubtful that Apple's lists no longer name: it was released, or moved to another device
/// management system, which ends locks and codes (T28).
pub(crate) const UNLISTED: &str = "unlisted";

macro_rules! select_devices {
    ($rest:literal) => {
        concat!(
            "SELECT devices.organisation, devices.serial, product_type, product_source, imei, imei2, meid, ",
            "cellular_source, model_name, device_name, os_version, device_code, connection, coverage, coverage_reason, ",
            "window_evidence, window_opened_at, window_closes_at, suspect, created_at, seen_at, listed_at, ",
            "lock_state, lock_evidence, lock_at FROM ",
            $rest
        )
    };
}
use select_devices;

/// A device, as the ledger works on it.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) organisation: OrganisationId,
    pub(crate) serial: SerialNumber,
    pub(crate) product_type: Option<ProductType>,
    pub(crate) product_source: Option<IdentitySource>,
    pub(crate) cellular: CellularIdentity,
    pub(crate) cellular_source: Option<IdentitySource>,
    pub(crate) model_name: Option<String>,
    pub(crate) device_name: Option<String>,
    pub(crate) os_version: Option<String>,
    pub(crate) device_code: Option<CodeId>,
    pub(crate) connection: Option<String>,
    pub(crate) coverage: CoverageState,
    pub(crate) coverage_reason: Option<String>,
    pub(crate) window_evidence: Option<window::Evidence>,
    pub(crate) window_opened_at: Option<Timestamp>,
    pub(crate) suspect: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) seen_at: Timestamp,
    /// When a list of Apple's last named it.
    pub(crate) listed_at: Option<Timestamp>,
    /// How our lock stands; written by [`crate::locks`] alone.
    lock: Option<LockStanding>,
    pub(crate) changed: bool,
    /// The texts it is found by, as they are on file.
    terms_on_file: [String; 4],
    /// Where it stands in lists, as it is on file; `None` when the device is new.
    place_on_file: Option<Place>,
}

/// What decides where a device stands in lists, and so in indexes.
type Place = (
    Option<ProductType>,
    Option<String>,
    CoverageState,
    Option<Timestamp>,
);

impl Device {
    pub(crate) fn new(key: &DeviceKey, now: Timestamp) -> Self {
        Self {
            organisation: key.0.clone(),
            serial: key.1.clone(),
            product_type: None,
            product_source: None,
            cellular: CellularIdentity::default(),
            cellular_source: None,
            model_name: None,
            device_name: None,
            os_version: None,
            device_code: None,
            connection: None,
            coverage: CoverageState::Missing,
            coverage_reason: Some("never_asked".to_owned()),
            window_evidence: None,
            window_opened_at: None,
            suspect: None,
            created_at: now,
            seen_at: now,
            listed_at: None,
            lock: None,
            changed: true,
            terms_on_file: Default::default(),
            place_on_file: None,
        }
    }

    fn from_row(row: &Row) -> Result<Self> {
        let serial: String = row.get("serial")?;
        let coverage = CoverageState::from_name(&row.get::<String>("coverage")?);
        let mut device = Self {
            organisation: row.get("organisation")?,
            serial: serial
                .parse()
                .map_err(|_| Error::Corrupt("devices.serial"))?,
            product_type: parsed(row.get("product_type")?, "devices.product_type")?,
            product_source: source(row.get("product_source")?),
            cellular: CellularIdentity {
                imei: parsed(row.get("imei")?, "devices.imei")?,
                imei2: parsed(row.get("imei2")?, "devices.imei2")?,
                meid: parsed(row.get("meid")?, "devices.meid")?,
            },
            cellular_source: source(row.get("cellular_source")?),
            model_name: row.get("model_name")?,
            device_name: row.get("device_name")?,
            os_version: row.get("os_version")?,
            device_code: row.get::<Option<String>>("device_code")?.map(CodeId),
            connection: row.get("connection")?,
            coverage,
            coverage_reason: row.get("coverage_reason")?,
            window_evidence: parsed(row.get("window_evidence")?, "devices.window_evidence")?,
            window_opened_at: row.get("window_opened_at")?,
            suspect: row.get("suspect")?,
            created_at: row.get("created_at")?,
            seen_at: row.get("seen_at")?,
            listed_at: row.get("listed_at")?,
            lock: Some(LockStanding::from_row(row)?),
            changed: false,
            terms_on_file: Default::default(),
            place_on_file: None,
        };
        device.terms_on_file = device.texts();
        device.place_on_file = Some(device.place());
        Ok(device)
    }

    fn place(&self) -> Place {
        (
            self.product_type.clone(),
            self.connection.clone(),
            self.coverage,
            self.window_opened_at,
        )
    }

    /// Its coverage as the counters have it; `None` when the device is new.
    pub(crate) fn coverage_on_file(&self) -> Option<CoverageState> {
        let (_, _, coverage, _) = self.place_on_file.as_ref()?;
        Some(*coverage)
    }

    /// Whether it stands elsewhere in lists than on file.
    pub(crate) fn has_moved(&self) -> bool {
        self.place_on_file != Some(self.place())
    }

    /// Devices by key; `keys` is a JSON array of organisation and serial number.
    pub(crate) async fn of_keys(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_devices!(
                "(SELECT value FROM json_each($1)) AS wanted JOIN devices ON organisation = wanted.value ->> 0 \
                 AND serial = wanted.value ->> 1"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    async fn by_key(
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        serial: &SerialNumber,
    ) -> Result<Option<Self>> {
        tx.fetch_optional(
            select_devices!("devices WHERE organisation = $1 AND serial = $2"),
            params![organisation.as_str(), serial.as_str()],
        )
        .await?
        .map(|row| Self::from_row(&row))
        .transpose()
    }

    pub(crate) fn key(&self) -> DeviceKey {
        (self.organisation.clone(), self.serial.clone())
    }

    fn texts(&self) -> [String; 4] {
        [
            self.serial.to_string(),
            self.product_type
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            self.model_name.clone().unwrap_or_default(),
            self.device_name.clone().unwrap_or_default(),
        ]
    }

    /// The sources of words it is found by, with the text on file and the text now.
    pub(crate) fn terms(&self) -> Vec<(&'static str, String, String)> {
        let on_file = self.terms_on_file.clone();
        ["serial", "product", "model", "name"]
            .into_iter()
            .zip(on_file.into_iter().zip(self.texts()))
            .map(|(source, (had, has))| (source, had, has))
            .collect()
    }

    /// Every column, in the order of [`crate::ledger`]'s statement.
    pub(crate) fn to_row(&self) -> Vec<Value> {
        params![
            self.organisation.as_str(),
            self.serial.as_str(),
            self.product_type.as_ref().map(ProductType::as_str),
            self.product_source.map(IdentitySource::as_str),
            self.cellular.imei.as_ref().map(Imei::as_str),
            self.cellular.imei2.as_ref().map(Imei::as_str),
            self.cellular.meid.as_ref().map(Meid::as_str),
            self.cellular_source.map(IdentitySource::as_str),
            self.model_name.as_deref(),
            self.device_name.as_deref(),
            self.os_version.as_deref(),
            self.device_code.as_ref().map(|code| code.0.as_str()),
            self.connection.as_deref(),
            self.coverage.as_str(),
            self.coverage_reason.as_deref(),
            self.window_evidence.map(window::Evidence::as_str),
            self.window_opened_at,
            self.window_opened_at.map(|at| at.plus(window::WINDOW)),
            self.suspect.as_deref(),
            self.created_at,
            self.seen_at,
            self.listed_at
        ]
    }

    /// Takes in what a device told of itself. A value from a better source is not replaced by one of a worse.
    fn learn(&mut self, told: &Told<'_>, now: Timestamp) {
        if let Some(product_type) = told.product_type
            && self.product_source != Some(IdentitySource::Person)
        {
            self.product_type = Some(product_type.clone());
            self.product_source = Some(IdentitySource::Device);
        }
        if !told.cellular.is_empty() && self.cellular_source.is_none_or(|had| had <= told.source) {
            self.cellular = told.cellular.clone();
            self.cellular_source = Some(told.source);
        }
        for (known, told) in [
            (&mut self.model_name, told.model_name),
            (&mut self.device_name, told.device_name),
            (&mut self.os_version, told.os_version),
        ] {
            if let Some(told) = told {
                *known = Some(told.to_owned());
            }
        }
        self.seen_at = now;
        self.changed = true;
    }

    /// Whether nothing is known of it but that a list of Apple's names it: no MDM ever told of it.
    pub(crate) fn was_only_listed(&self) -> bool {
        self.listed_at.is_some() && self.connection.is_none()
    }

    /// Takes in what a list of Apple's says. It fills gaps: what the device itself told, or a person, stays.
    pub(crate) fn learn_listed(
        &mut self,
        product_type: Option<&ProductType>,
        model: Option<&str>,
        cellular: &CellularIdentity,
        now: Timestamp,
    ) {
        let fills = |had: Option<IdentitySource>| had.is_none_or(|had| had == IdentitySource::List);
        if let Some(product_type) = product_type
            && fills(self.product_source)
        {
            self.product_type = Some(product_type.clone());
            self.product_source = Some(IdentitySource::List);
        }
        if !cellular.is_empty() && fills(self.cellular_source) {
            self.cellular = cellular.clone();
            self.cellular_source = Some(IdentitySource::List);
        }
        if self.model_name.is_none() {
            self.model_name = model.map(str::to_owned);
        }
        self.listed_at = Some(now);
        self.changed = true;
    }

    /// The list of a server of ours names it: what its absence had brought up is gone. That the organisation still has it does
    /// not say so, for it may have gone to another server.
    pub(crate) fn is_listed_again(&mut self) {
        if self.suspect.as_deref() == Some(UNLISTED) {
            self.suspect = None;
            self.changed = true;
        }
    }

    /// Takes in what an Authenticate says.
    pub(crate) fn learn_authenticate(&mut self, said: &Authenticate, now: Timestamp) {
        let told = Told {
            product_type: said.product_type.as_ref(),
            model_name: said.model_name.as_deref(),
            device_name: None,
            os_version: said.os_version.as_deref(),
            cellular: &said.cellular,
            source: IdentitySource::Device,
        };
        self.learn(&told, now);
    }

    /// Takes in an answer to DeviceInformation.
    pub(crate) fn learn_information(&mut self, said: &DeviceInformation, now: Timestamp) {
        let slots = said.slots.as_ref().filter(|slots| !slots.is_empty());
        let told = Told {
            product_type: said.product_type.as_ref(),
            model_name: said.model_name.as_deref(),
            device_name: said.device_name.as_deref(),
            os_version: said.os_version.as_deref(),
            cellular: slots.unwrap_or(&said.cellular),
            source: if slots.is_some() {
                IdentitySource::Slots
            } else {
                IdentitySource::Device
            },
        };
        self.learn(&told, now);
    }

    fn identity(&self) -> Option<DeviceIdentity> {
        let CellularIdentity { imei, imei2, meid } = self.cellular.clone();
        let product_type = self.product_type.clone()?;
        Some(DeviceIdentity {
            serial: self.serial.clone(),
            product_type,
            imei,
            imei2,
            meid,
        })
    }

    fn summary(&self, now: Timestamp) -> DeviceSummary {
        let window = window::window(
            self.window_opened_at.unwrap_or(now),
            self.window_evidence
                .filter(|_| self.window_opened_at.is_some()),
            self.coverage == CoverageState::Covered,
            now,
        );
        DeviceSummary {
            organisation: self.organisation.clone(),
            serial: self.serial.clone(),
            product_type: self.product_type.clone(),
            model_name: self.model_name.clone(),
            device_name: self.device_name.clone(),
            os_version: self.os_version.clone(),
            connection: self.connection.clone(),
            coverage: self.coverage,
            coverage_reason: self.coverage_reason.clone(),
            window: window.as_str(),
            window_closes_at: self.window_opened_at.map(|at| at.plus(window::WINDOW)),
            suspect: self.suspect.clone(),
            lock: self.lock.as_ref().map_or(OurLock::None, |lock| lock.state),
            seen_at: self.seen_at,
        }
    }
}

fn parsed<T: std::str::FromStr>(text: Option<String>, column: &'static str) -> Result<Option<T>> {
    text.map(|t| t.parse())
        .transpose()
        .map_err(|_| Error::Corrupt(column))
}

fn source(text: Option<String>) -> Option<IdentitySource> {
    [
        IdentitySource::List,
        IdentitySource::Device,
        IdentitySource::Slots,
        IdentitySource::Person,
    ]
    .into_iter()
    .find(|s| Some(s.as_str()) == text.as_deref())
}

/// How a device is named to Apple, and where its IMEIs come from; `None` without a product type (R15).
pub(crate) async fn identity_for_unlock(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<(DeviceIdentity, IdentitySource)>> {
    Ok(Device::by_key(tx, organisation, serial)
        .await?
        .and_then(|device| {
            Some((
                device.identity()?,
                device.cellular_source.unwrap_or(IdentitySource::Device),
            ))
        }))
}

/// Whether the code of the device of an open epoch is held, and why not.
pub(crate) fn covered_in(
    epoch: &Epoch,
    product: Option<&ProductType>,
) -> (CoverageState, Option<&'static str>) {
    if epoch.code.is_some() {
        return (CoverageState::Covered, None);
    }
    if let Some(why) = epoch.why_not_asked(product) {
        return (CoverageState::Exempt, Some(why.as_str()));
    }
    let reason = match epoch.state {
        EpochState::Disputed => "disputed",
        EpochState::Quarantined => "quarantined",
        _ if epoch.enrolled_at.is_none() => "enrolling",
        _ if epoch.facts.refusal.is_some() => "refused",
        _ if epoch.facts.answered_without_code => "answered_without_code",
        _ => "asked",
    };
    (CoverageState::Missing, Some(reason))
}

/// The verbs on devices. See [`Escrow::devices`].
pub struct Devices<'a>(pub(crate) &'a Escrow);

impl Devices<'_> {
    /// Finds the organisation of a device among those an actor may act in (R5).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn locate(&self, actor: &Actor, serial: &SerialNumber) -> Result<Located> {
        let (serial, grants) = (serial.clone(), actor.grants().clone());
        self.0
            .db
            .read(async move |tx| {
                let rows = tx
                    .fetch_all(
                        "SELECT organisation FROM devices WHERE serial = $1 ORDER BY organisation",
                        params![serial.as_str()],
                    )
                    .await?;
                let mut found = Vec::new();
                for row in rows {
                    let organisation: OrganisationId = row.get("organisation")?;
                    if grants.reach(&organisation) {
                        found.push(organisation);
                    }
                }
                Ok(match found.len() {
                    0 => Located::Nowhere,
                    1 => Located::In(found.remove(0)),
                    _ => Located::Several(found),
                })
            })
            .await
    }

    /// Everything about one device; `None` when the organisation does not know it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(
        &self,
        permit: &Permit<Read>,
        serial: &SerialNumber,
    ) -> Result<Option<DeviceView>> {
        let organisation = permit.organisation().clone();
        let serial = serial.clone();
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let Some(device) = Device::by_key(tx, &organisation, &serial).await? else {
                    return Ok(None);
                };
                let summary = device.summary(now);
                let family = summary.product_type.as_ref().map(ProductType::family);
                let epochs = Epoch::all_of_device(tx, &organisation, &serial).await?;
                let codes = codes::views(tx, &organisation, &serial).await?;
                let commands = Command::of_device(tx, &organisation, &serial, 50).await?;
                let unlocks = operations::of_device(tx, &organisation, &serial, 20).await?;
                let locks = locks::of_device(tx, &organisation, &serial, 20).await?;
                let status = lock_statuses::view(tx, &organisation, &serial).await?;
                let listings = listing::listings(tx, &organisation, &serial).await?;
                let history = History {
                    epochs: &epochs,
                    commands: &commands,
                    unlocks: &unlocks,
                    locks: &locks,
                };
                let timeline = timeline(tx, &organisation, &serial, &history).await?;
                let lock = device
                    .lock
                    .clone()
                    .ok_or(Error::Corrupt("devices.lock_state"))?;
                let product = summary.product_type.clone();
                Ok(Some(DeviceView {
                    identity: device.identity(),
                    cellular_source: device.cellular_source,
                    product_source: device.product_source,
                    cellular: device.cellular,
                    summary,
                    codes,
                    epochs: epochs
                        .into_iter()
                        .map(|epoch| EpochView {
                            not_asked: epoch.why_not_asked(product.as_ref()),
                            allowed_before_escrow: epoch.allowed_before_escrow(),
                            mac_warning: epoch.mac_warning(family),
                            id: epoch.id,
                            connection: epoch.connection,
                            enrollment: epoch.enrollment,
                            opened_by: epoch.opened_by,
                            opened_at: epoch.opened_at,
                            closed_at: epoch.closed_at,
                            state: epoch.state,
                            state_reason: epoch.state_reason,
                            code_at: epoch.code_at,
                            last_asked_at: epoch.last_asked_at,
                            facts: epoch.facts,
                        })
                        .collect(),
                    commands,
                    unlocks,
                    locks,
                    lock,
                    status,
                    listings,
                    timeline,
                }))
            })
            .await
    }

    /// Sets by hand how a device is named to Apple. Creates the device when it is not known yet.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn correct(
        &self,
        permit: &Permit<Edit>,
        serial: &SerialNumber,
        set: &Corrections,
    ) -> Result<()> {
        let (escrow, confirmed, serial, set) =
            (self.0.clone(), permit.clone(), serial.clone(), set.clone());
        let result = self
            .0
            .db
            .write("devices.correct", async move |tx| {
                confirmed.confirm(tx).await?;
                let organisation = confirmed.organisation().clone();
                let key = (organisation, serial.clone());
                let mut ledger = Ledger::new(tx, &escrow);
                ledger
                    .read(tx, &[], &[key.clone()].into(), &[].into())
                    .await?;
                let device = ledger.device_mut(&key);
                let mut entry = confirmed.entry("device.corrected").subject(serial.as_str());
                if let Some(product_type) = &set.product_type {
                    device.product_type = Some(product_type.clone());
                    device.product_source = Some(IdentitySource::Person);
                    entry = entry.detail("product_type", product_type.as_str());
                }
                if set.imei.is_some() || set.imei2.is_some() || set.meid.is_some() {
                    let had = device.cellular.clone();
                    device.cellular = CellularIdentity {
                        imei: set.imei.clone().or(had.imei),
                        imei2: set.imei2.clone().or(had.imei2),
                        meid: set.meid.clone().or(had.meid),
                    };
                    device.cellular_source = Some(IdentitySource::Person);
                    entry = entry.detail("cellular", "set");
                }
                ledger.refresh_coverage(&key);
                ledger.audit(entry);
                ledger.write(tx).await
            })
            .await;
        self.0.audit_refusal(permit, result).await
    }
}
