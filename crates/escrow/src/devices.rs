//! Devices: who they are, how they stand with their code, and what happened to them.

use activation_lock::asking;
use activation_lock::codes::CodeId;
use activation_lock::device::{
    CellularIdentity, DeviceIdentity, IdentitySource, Imei, Meid, ProductType, SerialNumber,
};
use activation_lock::observation::{Authenticate, DeviceInformation};
use activation_lock::time::Timestamp;
use activation_lock::window;
use serde::Serialize;

use crate::codes::CodeView;
use crate::commands::Command;
use crate::coverage::{self, CoverageState};
use crate::db::{Row, Tx, params};
use crate::enrollments::{Epoch, EpochFacts, EpochState, OpenedBy};
use crate::operations::{self, UnlockSummary};
use crate::permit::{Actor, Edit, OrganisationId, Permit, Read};
use crate::{Error, Escrow, Result, audit, codes, search};

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
    /// What happened to it, newest first.
    pub timeline: Vec<TimelineEntry>,
}

/// One line of a device's timeline.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// A stable word, such as `code.observed`.
    pub what: String,
    /// More, in words.
    pub details: String,
}

/// Which devices a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those with a serial number, name, user or product that has a word starting with this.
    pub search: Option<String>,
    /// Only those of this state.
    pub coverage: Option<CoverageState>,
    /// Only those whose window closes within five days, no code being held.
    pub closing: bool,
    /// Only those of this MDM connection.
    pub connection: Option<String>,
    /// Only those of this product type.
    pub product_type: Option<String>,
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

macro_rules! select_devices {
    ($rest:literal) => {
        concat!(
            "SELECT devices.organisation, devices.serial, product_type, product_source, imei, imei2, meid, ",
            "cellular_source, model_name, device_name, os_version, device_code, connection, coverage, coverage_reason, ",
            "window_evidence, window_opened_at, window_closes_at, suspect, created_at, seen_at FROM devices ",
            $rest
        )
    };
}

fn parsed<T: std::str::FromStr>(text: Option<String>, column: &'static str) -> Result<Option<T>> {
    text.map(|t| t.parse()).transpose().map_err(|_| Error::Corrupt(column))
}

fn source(text: Option<String>) -> Option<IdentitySource> {
    [IdentitySource::List, IdentitySource::Device, IdentitySource::Slots, IdentitySource::Person]
        .into_iter()
        .find(|s| Some(s.as_str()) == text.as_deref())
}

fn summary(row: &Row, now: Timestamp) -> Result<DeviceSummary> {
    let serial: String = row.get("serial")?;
    let coverage = CoverageState::from_name(&row.get::<String>("coverage")?);
    let opened_at: Option<Timestamp> = row.get("window_opened_at")?;
    let evidence: Option<window::Evidence> = parsed(row.get("window_evidence")?, "devices.window_evidence")?;
    let window = window::window(
        opened_at.unwrap_or(now),
        evidence.filter(|_| opened_at.is_some()),
        coverage == CoverageState::Covered,
        now,
    );
    Ok(DeviceSummary {
        organisation: row.get("organisation")?,
        serial: serial.parse().map_err(|_| Error::Corrupt("devices.serial"))?,
        product_type: parsed(row.get("product_type")?, "devices.product_type")?,
        model_name: row.get("model_name")?,
        device_name: row.get("device_name")?,
        os_version: row.get("os_version")?,
        connection: row.get("connection")?,
        coverage,
        coverage_reason: row.get("coverage_reason")?,
        window: window.as_str(),
        window_closes_at: row.get("window_closes_at")?,
        suspect: row.get("suspect")?,
        seen_at: row.get("seen_at")?,
    })
}

fn cellular(row: &Row) -> Result<CellularIdentity> {
    Ok(CellularIdentity {
        imei: parsed(row.get("imei")?, "devices.imei")?,
        imei2: parsed(row.get("imei2")?, "devices.imei2")?,
        meid: parsed(row.get("meid")?, "devices.meid")?,
    })
}

async fn row_of(tx: &mut Tx<'_>, organisation: &OrganisationId, serial: &SerialNumber) -> Result<Option<Row>> {
    tx.fetch_optional(
        select_devices!("WHERE devices.organisation = $1 AND devices.serial = $2"),
        params![organisation.as_str(), serial.as_str()],
    )
    .await
}

/// Makes the row of a device if there is none. Says whether it did.
pub(crate) async fn ensure(tx: &mut Tx<'_>, organisation: &OrganisationId, serial: &SerialNumber) -> Result<bool> {
    let now = tx.now();
    let inserted = tx
        .execute(
            "INSERT INTO devices (organisation, serial, coverage, coverage_reason, created_at, seen_at) \
             VALUES ($1, $2, $3, 'never_asked', $4, $4) ON CONFLICT DO NOTHING",
            params![organisation.as_str(), serial.as_str(), CoverageState::Missing.as_str(), now],
        )
        .await?;
    if inserted == 1 {
        coverage::count(tx, organisation, CoverageState::Missing, 1).await?;
        search::index(tx, organisation, serial, "serial", Some(serial.as_str())).await?;
    }
    Ok(inserted == 1)
}

pub(crate) async fn enrolled_with(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    connection: &str,
) -> Result<()> {
    let now = tx.now();
    tx.execute(
        "UPDATE devices SET connection = $3, suspect = NULL, seen_at = $4 WHERE organisation = $1 AND serial = $2",
        params![organisation.as_str(), serial.as_str(), connection, now],
    )
    .await?;
    Ok(())
}

pub(crate) async fn suspect(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    why: Option<&str>,
) -> Result<()> {
    tx.execute(
        "UPDATE devices SET suspect = $3 WHERE organisation = $1 AND serial = $2",
        params![organisation.as_str(), serial.as_str(), why],
    )
    .await?;
    Ok(())
}

pub(crate) async fn product_type(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<ProductType>> {
    match row_of(tx, organisation, serial).await? {
        Some(row) => parsed(row.get("product_type")?, "devices.product_type"),
        None => Ok(None),
    }
}

pub(crate) async fn current_device_code(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<CodeId>> {
    match row_of(tx, organisation, serial).await? {
        Some(row) => Ok(row.get::<Option<String>>("device_code")?.map(CodeId)),
        None => Ok(None),
    }
}

pub(crate) async fn set_device_code(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    code: &CodeId,
) -> Result<()> {
    tx.execute(
        "UPDATE devices SET device_code = $3 WHERE organisation = $1 AND serial = $2",
        params![organisation.as_str(), serial.as_str(), code.0.as_str()],
    )
    .await?;
    Ok(())
}

/// The device was set up afresh, as far as anybody can tell: the 15 days run from the start of this epoch (R9).
pub(crate) async fn window_opened(
    tx: &mut Tx<'_>,
    epoch: &Epoch,
    serial: &SerialNumber,
    awaiting: bool,
    different_code: bool,
) -> Result<()> {
    let Some(evidence) = window::evidence(awaiting, different_code) else { return Ok(()) };
    tx.execute(
        "UPDATE devices SET window_evidence = $3, window_opened_at = $4, window_closes_at = $5 \
         WHERE organisation = $1 AND serial = $2 AND (window_opened_at IS NULL OR window_opened_at < $4)",
        params![
            epoch.organisation.as_str(),
            serial.as_str(),
            evidence.as_str(),
            epoch.opened_at,
            epoch.opened_at.plus(window::WINDOW)
        ],
    )
    .await?;
    Ok(())
}

/// The values of one report that name and describe a device.
struct Told<'a> {
    product_type: Option<&'a ProductType>,
    model_name: Option<&'a str>,
    device_name: Option<&'a str>,
    os_version: Option<&'a str>,
    cellular: &'a CellularIdentity,
    source: IdentitySource,
}

pub(crate) async fn learn_authenticate(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    said: &Authenticate,
) -> Result<()> {
    let told = Told {
        product_type: said.product_type.as_ref(),
        model_name: said.model_name.as_deref(),
        device_name: None,
        os_version: said.os_version.as_deref(),
        cellular: &said.cellular,
        source: IdentitySource::Device,
    };
    learn(tx, organisation, serial, &told).await
}

pub(crate) async fn learn_information(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    said: &DeviceInformation,
) -> Result<()> {
    let slots = said.slots.as_ref().filter(|slots| !slots.is_empty());
    let told = Told {
        product_type: said.product_type.as_ref(),
        model_name: said.model_name.as_deref(),
        device_name: said.device_name.as_deref(),
        os_version: said.os_version.as_deref(),
        cellular: slots.unwrap_or(&said.cellular),
        source: if slots.is_some() { IdentitySource::Slots } else { IdentitySource::Device },
    };
    learn(tx, organisation, serial, &told).await
}

/// Takes in what a device told of itself. A value from a better source is not replaced by one of a worse.
async fn learn(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    told: &Told<'_>,
) -> Result<()> {
    let Some(row) = row_of(tx, organisation, serial).await? else { return Ok(()) };
    let (product_had, cellular_had) = (source(row.get("product_source")?), source(row.get("cellular_source")?));
    let now = tx.now();
    if let Some(product_type) = told.product_type
        && product_had.is_none_or(|had| had <= told.source || told.source == IdentitySource::Device)
        && product_had != Some(IdentitySource::Person)
    {
        tx.execute(
            "UPDATE devices SET product_type = $3, product_source = $4 WHERE organisation = $1 AND serial = $2",
            params![organisation.as_str(), serial.as_str(), product_type.as_str(), told.source.as_str()],
        )
        .await?;
        search::index(tx, organisation, serial, "product", Some(product_type.as_str())).await?;
    }
    if !told.cellular.is_empty() && cellular_had.is_none_or(|had| had <= told.source) {
        set_cellular(tx, organisation, serial, told.cellular, told.source).await?;
    }
    tx.execute(
        "UPDATE devices SET model_name = COALESCE($3, model_name), device_name = COALESCE($4, device_name), \
         os_version = COALESCE($5, os_version), seen_at = $6 WHERE organisation = $1 AND serial = $2",
        params![organisation.as_str(), serial.as_str(), told.model_name, told.device_name, told.os_version, now],
    )
    .await?;
    if told.model_name.is_some() {
        search::index(tx, organisation, serial, "model", told.model_name).await?;
    }
    if told.device_name.is_some() {
        search::index(tx, organisation, serial, "name", told.device_name).await?;
    }
    Ok(())
}

async fn set_cellular(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    cellular: &CellularIdentity,
    source: IdentitySource,
) -> Result<()> {
    tx.execute(
        "UPDATE devices SET imei = $3, imei2 = $4, meid = $5, cellular_source = $6 \
         WHERE organisation = $1 AND serial = $2",
        params![
            organisation.as_str(),
            serial.as_str(),
            cellular.imei.as_ref().map(Imei::as_str),
            cellular.imei2.as_ref().map(Imei::as_str),
            cellular.meid.as_ref().map(Meid::as_str),
            source.as_str()
        ],
    )
    .await?;
    Ok(())
}

/// How a device is named to Apple, and where its IMEIs come from; `None` without a product type (R15).
pub(crate) async fn identity_for_unlock(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<(DeviceIdentity, IdentitySource)>> {
    match row_of(tx, organisation, serial).await? {
        Some(row) => Ok(identity(&row, serial)?.zip(Some(
            source(row.get("cellular_source")?).unwrap_or(IdentitySource::Device),
        ))),
        None => Ok(None),
    }
}

fn identity(row: &Row, serial: &SerialNumber) -> Result<Option<DeviceIdentity>> {
    let product_type: Option<ProductType> = parsed(row.get("product_type")?, "devices.product_type")?;
    let CellularIdentity { imei, imei2, meid } = cellular(row)?;
    Ok(product_type.map(|product_type| DeviceIdentity { serial: serial.clone(), product_type, imei, imei2, meid }))
}

/// When the newest epoch of the device was opened, and under which topic it is enrolled.
pub(crate) async fn live_epoch(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Option<LiveEpoch>> {
    let newest = Epoch::open_of_device(tx, organisation, serial).await?.pop();
    Ok(newest.map(|epoch| LiveEpoch {
        opened_at: epoch.opened_at,
        adopted: epoch.opened_by == OpenedBy::Adopted,
        topic: epoch.topic,
        connection: epoch.connection,
    }))
}

/// What an unlock wants to know of the live epoch.
pub(crate) struct LiveEpoch {
    /// When it was opened here.
    pub(crate) opened_at: Timestamp,
    /// It was found under way: no sign of a new enrolment.
    pub(crate) adopted: bool,
    /// The push topic.
    pub(crate) topic: Option<String>,
    /// The MDM connection.
    pub(crate) connection: String,
}

/// Works out anew whether the code of a device is held, and why not.
pub(crate) async fn refresh_coverage(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<()> {
    let Some(row) = row_of(tx, organisation, serial).await? else { return Ok(()) };
    let had = CoverageState::from_name(&row.get::<String>("coverage")?);
    let had_reason: Option<String> = row.get("coverage_reason")?;
    let product: Option<ProductType> = parsed(row.get("product_type")?, "devices.product_type")?;
    let has_current = row.get::<Option<String>>("device_code")?.is_some();
    let epochs = Epoch::open_of_device(tx, organisation, serial).await?;
    let (state, reason) = match epochs.last() {
        None if has_current => (CoverageState::Covered, None),
        None => {
            let any = !codes::candidates(tx, organisation, serial).await?.is_empty();
            if any { (CoverageState::Covered, Some("kept_only")) } else { (CoverageState::Missing, Some("not_enrolled")) }
        }
        Some(epoch) => covered_in(epoch, product.as_ref()),
    };
    if had == state && had_reason.as_deref() == reason {
        return Ok(());
    }
    tx.execute(
        "UPDATE devices SET coverage = $3, coverage_reason = $4 WHERE organisation = $1 AND serial = $2",
        params![organisation.as_str(), serial.as_str(), state.as_str(), reason],
    )
    .await?;
    if had != state {
        coverage::count(tx, organisation, had, -1).await?;
        coverage::count(tx, organisation, state, 1).await?;
    }
    Ok(())
}

fn covered_in(epoch: &Epoch, product: Option<&ProductType>) -> (CoverageState, Option<&'static str>) {
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
        let (serial, scope) = (serial.clone(), actor.scope().clone());
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
                    if scope.covers(&organisation) {
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

    /// One page of devices, by serial number. `limit` is 1 to 500.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        &self,
        permit: &Permit<Read>,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<DeviceSummary>> {
        let organisation = permit.organisation().clone();
        let filter = filter.clone();
        let after = cursor.unwrap_or("").to_owned();
        let limit = limit.clamp(1, 500);
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let term = filter.search.as_deref().map(search::normal);
                let until = term.as_deref().map(search::prefix_end);
                let closing_before = filter.closing.then(|| now.plus(window::WINDOW - window::CLOSING_AFTER));
                let rows = tx
                    .fetch_all(
                        select_devices!(
                            "WHERE devices.organisation = $1 AND devices.serial > $2 \
                             AND ($3 IS NULL OR coverage = $3) \
                             AND ($4 IS NULL OR connection = $4) \
                             AND ($5 IS NULL OR product_type = $5) \
                             AND ($6 IS NULL OR (coverage = 'missing' AND window_closes_at > $7 AND window_closes_at <= $6)) \
                             AND ($8 IS NULL OR EXISTS (SELECT 1 FROM device_terms WHERE \
                                  device_terms.organisation = $1 AND device_terms.term >= $8 AND device_terms.term < $9 \
                                  AND device_terms.serial = devices.serial)) \
                             ORDER BY devices.serial LIMIT $10"
                        ),
                        params![
                            organisation.as_str(),
                            after.as_str(),
                            filter.coverage.map(CoverageState::as_str),
                            filter.connection.as_deref(),
                            filter.product_type.as_deref(),
                            closing_before,
                            now,
                            term.as_deref(),
                            until.as_deref(),
                            i64::try_from(limit + 1).unwrap_or(i64::MAX)
                        ],
                    )
                    .await?;
                let mut items = rows.iter().map(|row| summary(row, now)).collect::<Result<Vec<_>>>()?;
                let more = items.len() > limit;
                items.truncate(limit);
                let next = more.then(|| items.last().map(|d| d.serial.to_string())).flatten();
                Ok(Page { items, next })
            })
            .await
    }

    /// Everything about one device; `None` when the organisation does not know it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, permit: &Permit<Read>, serial: &SerialNumber) -> Result<Option<DeviceView>> {
        let organisation = permit.organisation().clone();
        let serial = serial.clone();
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let Some(row) = row_of(tx, &organisation, &serial).await? else { return Ok(None) };
                let summary = summary(&row, now)?;
                let family = summary.product_type.as_ref().map(ProductType::family);
                let epochs = Epoch::all_of_device(tx, &organisation, &serial).await?;
                let codes = codes::views(tx, &organisation, &serial).await?;
                let commands = Command::of_device(tx, &organisation, &serial, 50).await?;
                let unlocks = operations::of_device(tx, &organisation, &serial, 20).await?;
                let timeline = timeline(tx, &organisation, &serial, &epochs, &commands, &unlocks).await?;
                let product = summary.product_type.clone();
                Ok(Some(DeviceView {
                    identity: identity(&row, &serial)?,
                    cellular_source: source(row.get("cellular_source")?),
                    product_source: source(row.get("product_source")?),
                    cellular: cellular(&row)?,
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
                    timeline,
                }))
            })
            .await
    }

    /// Sets by hand how a device is named to Apple. Creates the device when it is not known yet.
    ///
    /// # Errors
    /// When the permit no longer holds, or the database fails.
    pub async fn correct(&self, permit: &Permit<Edit>, serial: &SerialNumber, set: &Corrections) -> Result<()> {
        let (escrow, permit, serial, set) = (self.0.clone(), permit.clone(), serial.clone(), set.clone());
        self.0
            .db
            .write("devices.correct", async move |tx| {
                permit.confirm(tx).await?;
                let organisation = permit.organisation().clone();
                ensure(tx, &organisation, &serial).await?;
                let mut entry = permit.entry("device.corrected").subject(serial.as_str());
                if let Some(product_type) = &set.product_type {
                    tx.execute(
                        "UPDATE devices SET product_type = $3, product_source = 'person' \
                         WHERE organisation = $1 AND serial = $2",
                        params![organisation.as_str(), serial.as_str(), product_type.as_str()],
                    )
                    .await?;
                    search::index(tx, &organisation, &serial, "product", Some(product_type.as_str())).await?;
                    entry = entry.detail("product_type", product_type.as_str());
                }
                if set.imei.is_some() || set.imei2.is_some() || set.meid.is_some() {
                    let row = row_of(tx, &organisation, &serial).await?.ok_or(Error::Corrupt("devices"))?;
                    let had = cellular(&row)?;
                    let now_known = CellularIdentity {
                        imei: set.imei.clone().or(had.imei),
                        imei2: set.imei2.clone().or(had.imei2),
                        meid: set.meid.clone().or(had.meid),
                    };
                    set_cellular(tx, &organisation, &serial, &now_known, IdentitySource::Person).await?;
                    entry = entry.detail("cellular", "set");
                }
                refresh_coverage(tx, &organisation, &serial).await?;
                audit::record(tx, &escrow, entry).await
            })
            .await
    }
}

/// What happened to a device, newest first, from the rows that record it.
async fn timeline(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
    epochs: &[Epoch],
    commands: &[Command],
    unlocks: &[UnlockSummary],
) -> Result<Vec<TimelineEntry>> {
    let mut lines = Vec::new();
    let mut add = |at: Timestamp, what: &str, details: String| {
        lines.push(TimelineEntry { at, what: what.to_owned(), details });
    };
    for epoch in epochs {
        let how = match epoch.opened_by {
            OpenedBy::Authenticate => "it enrolled",
            OpenedBy::TokenUpdate => "it enrolled; its Authenticate was not seen",
            OpenedBy::Adopted => "first seen, enrolled already",
        };
        add(epoch.opened_at, "enrollment.opened", how.to_owned());
        if let Some(closed_at) = epoch.closed_at {
            add(closed_at, "enrollment.closed", epoch.state_reason.clone().unwrap_or_default());
        }
    }
    for command in commands {
        add(command.created_at, "command.made", command.what.request_type().to_owned());
        if let Some(at) = command.answered_at {
            let outcome = command.reason.as_deref().unwrap_or("answered");
            add(at, "command.answered", format!("{}: {outcome}", command.what.request_type()));
        }
    }
    for unlock in unlocks {
        add(unlock.requested_at, "unlock.requested", format!("by {}: {}", unlock.requested_by, unlock.reason));
        if let Some(at) = unlock.ended_at {
            add(at, "unlock.ended", unlock.state.as_str().to_owned());
        }
    }
    let observations = tx
        .fetch_all(
            "SELECT code, standing, recorded_at FROM code_observations WHERE organisation = $1 AND serial = $2 \
             ORDER BY id DESC LIMIT 100",
            params![organisation.as_str(), serial.as_str()],
        )
        .await?;
    for row in observations {
        let code: String = row.get("code")?;
        let standing: String = row.get("standing")?;
        lines.push(TimelineEntry {
            at: row.get("recorded_at")?,
            what: "code.observed".to_owned(),
            details: format!("{code} ({standing})"),
        });
    }
    lines.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.what.cmp(&b.what)));
    lines.truncate(200);
    Ok(lines)
}
