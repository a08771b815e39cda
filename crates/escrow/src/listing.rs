//! The devices that Apple's lists name: those of the servers of the enrolment service, read whole once and by changes from then
//! on, and those of the Business and School Manager API. They make devices known that never enrolled, and fill gaps in what is
//! known of others. That a list no longer names a device makes its codes doubtful; nothing is deleted (R2, T28).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use activation_lock::device::{CellularIdentity, Imei, Meid, ProductType, SerialNumber};
use activation_lock::time::Timestamp;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::approvals::Passed;
use crate::business_apis::BusinessApiView;
use crate::db::{Tx, list, params};
use crate::devices::UNLISTED;
use crate::duties::Held;
use crate::ledger::{DeviceKey, Ledger};
use crate::locks::{self, Wish};
use crate::names::names;
use crate::operations::{self, worker};
use crate::permit::{Actor, OrganisationId, Permissions};
use crate::server_tokens::ServerTokenView;
use crate::{Error, Escrow, Result, audit, organisations};

/// So many locks an hour are asked for by the policy "lock on listing"; then it pauses for a person (R20).
pub const AUTOMATIC_LOCKS_AN_HOUR: i64 = 20;

/// How the policy is named as the one who asks.
const POLICY: &str = "lock on listing";

names! {
    /// How a server's list is read.
    Reading {
        /// Not yet, or anew: whole.
        New = "new",
        /// It is being read whole.
        Whole = "whole",
        /// By its changes.
        Changes = "changes",
    }
}

/// A list that is to be read on now.
#[derive(Clone, Debug)]
pub struct Job {
    /// The server's token.
    pub token: ServerTokenView,
    /// How.
    pub reading: Reading,
    /// From where.
    pub cursor: Option<String>,
}

/// A device as a server's list has it. What is `None` the list did not say.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Apple's words for the model.
    pub model: Option<String>,
    /// Apple's description.
    pub description: Option<String>,
    /// The colour.
    pub color: Option<String>,
    /// `iPad`, `iPhone`, `Mac`.
    pub device_family: Option<String>,
    /// `iOS`, `OSX`, `tvOS`.
    pub os: Option<String>,
    /// The asset tag.
    pub asset_tag: Option<String>,
    /// How it stands with an enrolment profile.
    pub profile_status: Option<String>,
    /// Who assigned it.
    pub assigned_by: Option<String>,
    /// When.
    pub assigned_at: Option<Timestamp>,
    /// IMEIs, without saying of which slot (R18).
    pub imei: Vec<Imei>,
    /// MEIDs.
    pub meid: Vec<Meid>,
    /// The EID.
    pub eid: Option<String>,
    /// Whether it came in place of another.
    pub is_replacement: Option<bool>,
    /// Whether it was released because another came in its place.
    pub released_by_replacement: Option<bool>,
    /// Until when it is to be moved to another device management system.
    pub migration_deadline: Option<Timestamp>,
}

/// A line of a list.
#[derive(Clone, Debug)]
pub enum Line {
    /// The list names it.
    Names(SerialNumber, Box<Listed>),
    /// The list no longer names it.
    NamesNoMore(SerialNumber),
}

impl Line {
    fn serial(&self) -> &SerialNumber {
        match self {
            Self::Names(serial, _) | Self::NamesNoMore(serial) => serial,
        }
    }
}

/// A page of a server's list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its lines, in Apple's order.
    pub lines: Vec<Line>,
    /// Where the next begins.
    pub cursor: Option<String>,
    /// Whether there is one.
    pub more: bool,
}

/// What a page changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Devices that were not listed before.
    pub new: usize,
    /// Devices that are listed no more.
    pub gone: usize,
    /// Locks that the policy asked for.
    pub locks: usize,
    /// The policy has asked for as many locks as it may in an hour, and waits for a person.
    pub paused: bool,
}

/// A device as the Business and School Manager API has it.
#[derive(Clone, Debug)]
pub struct OrgDevice {
    /// The serial number.
    pub serial: SerialNumber,
    /// The product type.
    pub product_type: Option<ProductType>,
    /// Apple's words for the model.
    pub model: Option<String>,
    /// IMEIs, without saying of which slot (R18).
    pub imei: Vec<Imei>,
    /// MEIDs.
    pub meid: Vec<Meid>,
}

/// A server's list of devices, as far as it names one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The server token's identifier.
    pub server_token: String,
    /// Our name for it.
    pub name: String,
    /// Apple's words for the model, such as `iPhone XR`: not a product type (contract sheet 1.8).
    pub model: Option<String>,
    /// Apple's description.
    pub description: Option<String>,
    /// The colour.
    pub color: Option<String>,
    /// `iPad`, `iPhone`, `Mac`.
    pub device_family: Option<String>,
    /// `iOS`, `OSX`, `tvOS`.
    pub os: Option<String>,
    /// The asset tag.
    pub asset_tag: Option<String>,
    /// How it stands with an enrolment profile.
    pub profile_status: Option<String>,
    /// Who assigned it.
    pub assigned_by: Option<String>,
    /// When.
    pub assigned_at: Option<Timestamp>,
    /// Whether it came in place of another (contract sheet 5.12). It shares no codes with that one (R5).
    pub is_replacement: Option<bool>,
    /// Whether it was released because another came in its place.
    pub released_by_replacement: Option<bool>,
    /// Until when it is to be moved to another device management system.
    pub migration_deadline: Option<Timestamp>,
    /// When the list first named it.
    pub first_at: Timestamp,
    /// When the list last named it.
    pub last_at: Timestamp,
    /// When the list was found to name it no more.
    pub gone_at: Option<Timestamp>,
}

/// The verbs on lists. See [`Escrow::listing`].
pub struct Listings<'a>(pub(crate) &'a Escrow, pub(crate) Option<Held>);

impl Listings<'_> {
    /// The same verbs, for a process that has the duty of reading lists: what is read is not taken in once another has it, for it may be
    /// older than what that one has read.
    #[must_use]
    pub fn under(self, held: Held) -> Self {
        Self(self.0, Some(held))
    }

    /// The lists that are to be read on now, and when the next is. A list is read every `every`, and again after a failure when
    /// [`Self::put_off`] said.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(&self, every: Duration) -> Result<(Vec<Job>, Option<Timestamp>)> {
        let tokens = self.0.server_tokens().all().await?;
        self.0
            .db
            .read(async move |tx| {
                let now = tx.now();
                let (mut due, mut next) = (Vec::new(), None);
                for token in &tokens {
                    if token.has_expired(now) {
                        continue;
                    }
                    let row = tx
                        .fetch_one(
                            "SELECT listing, cursor, retry_at FROM server_tokens WHERE organisation = $1 AND id = $2",
                            params![token.organisation.as_str(), token.id.as_str()],
                        )
                        .await?;
                    let reading = Reading::from_name(&row.get::<String>("listing")?)
                        .ok_or(Error::Corrupt("server_tokens.listing"))?;
                    let retry_at: Option<Timestamp> = row.get("retry_at")?;
                    let at = match (retry_at, reading, token.listed_at) {
                        (Some(at), _, _) => at,
                        (None, Reading::Changes, Some(listed_at)) => listed_at.plus(every),
                        (None, _, _) => now,
                    };
                    if at > now {
                        next = next.into_iter().chain([at]).min();
                    } else {
                        due.push(Job {
                            token: token.clone(),
                            reading,
                            cursor: row.get("cursor")?,
                        });
                    }
                }
                Ok((due, next))
            })
            .await
    }

    /// A list is read whole from now on: for the first time, or because Apple no longer knows where we were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_whole(&self, token: &ServerTokenView) -> Result<()> {
        let (organisation, id) = (token.organisation.clone(), token.id.clone());
        self.0
            .db
            .write("listing.begin_whole", async move |tx| {
                tx.execute(
                    "UPDATE server_tokens SET listing = 'whole', cursor = NULL, listing_run = listing_run + 1, retry_at = NULL \
                     WHERE organisation = $1 AND id = $2",
                    params![organisation.as_str(), id.as_str()],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// A list cannot be read now; it is tried again at a moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_off(&self, token: &ServerTokenView, until: Timestamp) -> Result<()> {
        let (organisation, id) = (token.organisation.clone(), token.id.clone());
        self.0
            .db
            .write("listing.put_off", async move |tx| {
                tx.execute(
                    "UPDATE server_tokens SET retry_at = $3 WHERE organisation = $1 AND id = $2",
                    params![organisation.as_str(), id.as_str(), until],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// Takes in a page, with where the next begins, in one transaction: what was read is never read again, nor lost. `None` when
    /// the token was removed or renewed meanwhile: then nothing of it is taken in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn page(
        &self,
        token: &ServerTokenView,
        reading: Reading,
        page: Page,
    ) -> Result<Option<Changed>> {
        let (escrow, token, page) = (self.0.clone(), token.clone(), std::sync::Arc::new(page));
        let held = self.1.clone();
        let changed = self
            .0
            .db
            .write("listing.page", async move |tx| {
                if let Some(held) = &held
                    && !held.is_still_so(tx).await?
                {
                    return Ok(None);
                }
                take_page(tx, &escrow, &token, reading, &page).await
            })
            .await?;
        if changed.as_ref().is_some_and(|changed| changed.locks > 0) {
            self.0.operations().wake();
        }
        Ok(changed)
    }

    /// Takes in a page of the Business and School Manager API: product types and IMEIs where they are not known. `cursor` is
    /// where the next page begins; `None` on the last. False when the account was changed meanwhile: then nothing is taken in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fill(
        &self,
        account: &BusinessApiView,
        devices: Vec<OrgDevice>,
        cursor: Option<String>,
    ) -> Result<bool> {
        let (escrow, organisation, version, devices) = (
            self.0.clone(),
            account.organisation.clone(),
            account.version,
            std::sync::Arc::new(devices),
        );
        self.0
            .db
            .write("listing.fill", async move |tx| {
                let live = tx
                    .fetch_optional(
                        "SELECT organisation FROM business_apis WHERE organisation = $1 AND version = $2 \
                         AND removed_at IS NULL",
                        params![organisation.as_str(), version],
                    )
                    .await?;
                if live.is_none() {
                    return Ok(false);
                }
                let keys: BTreeSet<DeviceKey> =
                    devices.iter().map(|d| (organisation.clone(), d.serial.clone())).collect();
                let mut ledger = Ledger::new(tx, &escrow);
                ledger.read(tx, &[], &keys, &BTreeSet::new()).await?;
                let now = ledger.now();
                for device in devices.iter() {
                    let key = (organisation.clone(), device.serial.clone());
                    let cellular = cellular(&device.imei, &device.meid);
                    let row = ledger.device_mut(&key);
                    row.learn_listed(device.product_type.as_ref(), device.model.as_deref(), &cellular, now);
                    ledger.refresh_coverage(&key);
                }
                ledger.write(tx).await?;
                tx.execute(
                    "UPDATE business_apis SET cursor = $3, listed_at = CASE WHEN $3 IS NULL THEN $4 ELSE listed_at END \
                     WHERE organisation = $1 AND version = $2",
                    params![organisation.as_str(), version, cursor.as_deref(), now],
                )
                .await?;
                Ok(true)
            })
            .await
    }
}

/// Every list that names a device, or did.
pub(crate) async fn listings(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<Vec<Listing>> {
    tx.fetch_all(
        "SELECT server_token, name, model, description, color, device_family, os, asset_tag, profile_status, assigned_by, \
         assigned_at, is_replacement, released_by_replacement, migration_deadline, first_at, last_at, gone_at \
         FROM listed_devices JOIN server_tokens ON server_tokens.organisation = listed_devices.organisation \
         AND id = server_token WHERE listed_devices.organisation = $1 AND serial = $2 ORDER BY server_token",
        params![organisation.as_str(), serial.as_str()],
    )
    .await?
    .iter()
    .map(|row| {
        Ok(Listing {
            server_token: row.get("server_token")?,
            name: row.get("name")?,
            model: row.get("model")?,
            description: row.get("description")?,
            color: row.get("color")?,
            device_family: row.get("device_family")?,
            os: row.get("os")?,
            asset_tag: row.get("asset_tag")?,
            profile_status: row.get("profile_status")?,
            assigned_by: row.get("assigned_by")?,
            assigned_at: row.get("assigned_at")?,
            is_replacement: row.get("is_replacement")?,
            released_by_replacement: row.get("released_by_replacement")?,
            migration_deadline: row.get("migration_deadline")?,
            first_at: row.get("first_at")?,
            last_at: row.get("last_at")?,
            gone_at: row.get("gone_at")?,
        })
    })
    .collect()
}

/// The numbers of a list that names no slots, in the order in which it has them (R18: tried swapped too).
fn cellular(imei: &[Imei], meid: &[Meid]) -> CellularIdentity {
    CellularIdentity {
        imei: imei.first().cloned(),
        imei2: imei.get(1).cloned(),
        meid: meid.first().cloned(),
    }
}

async fn take_page(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    token: &ServerTokenView,
    reading: Reading,
    page: &Page,
) -> Result<Option<Changed>> {
    let organisation = &token.organisation;
    let is_live = tx
        .fetch_optional(
            "SELECT id FROM server_tokens WHERE organisation = $1 AND id = $2 AND version = $3 AND removed_at IS NULL",
            params![organisation.as_str(), token.id.as_str(), token.version],
        )
        .await?;
    if is_live.is_none() {
        return Ok(None);
    }
    let now = tx.now();
    // The last line of a device is how it stands.
    let lines: BTreeMap<&SerialNumber, &Line> = page
        .lines
        .iter()
        .map(|line| (line.serial(), line))
        .collect();
    let listed_before = listed(tx, organisation, lines.keys().copied()).await?;
    write_lines(tx, token, lines.values().copied()).await?;

    let mut gone: BTreeSet<SerialNumber> = lines
        .values()
        .filter(|line| matches!(line, Line::NamesNoMore(_)))
        .map(|line| line.serial().clone())
        .filter(|serial| listed_before.contains(serial))
        .collect();
    if reading == Reading::Whole && !page.more {
        gone.extend(not_seen_again(tx, token).await?);
    }
    let keys: BTreeSet<DeviceKey> = lines
        .keys()
        .map(|serial| (*serial).clone())
        .chain(gone.iter().cloned())
        .map(|serial| (organisation.clone(), serial))
        .collect();
    let listed_now = listed(tx, organisation, keys.iter().map(|(_, serial)| serial)).await?;
    gone.retain(|serial| !listed_now.contains(serial));

    let mut ledger = Ledger::new(tx, escrow);
    ledger.read(tx, &[], &keys, &BTreeSet::new()).await?;
    for line in lines.values() {
        if let Line::Names(serial, said) = line {
            let key = (organisation.clone(), serial.clone());
            let numbers = cellular(&said.imei, &said.meid);
            let row = ledger.device_mut(&key);
            row.learn_listed(None, said.model.as_deref(), &numbers, now);
            row.is_listed_again();
            ledger.refresh_coverage(&key);
        }
    }
    for serial in &gone {
        let key = (organisation.clone(), serial.clone());
        ledger.device_mut(&key).suspect = Some(UNLISTED.to_owned());
        let entry = audit::Entry::by(&worker(), organisation, "device.unlisted")
            .subject(serial.as_str())
            .detail("server_token", token.id.as_str());
        ledger.audit(entry);
    }
    ledger.write(tx).await?;
    advance(tx, token, reading, page).await?;

    let new: Vec<SerialNumber> = listed_now.difference(&listed_before).cloned().collect();
    let mut changed = Changed {
        new: new.len(),
        gone: gone.len(),
        ..Changed::default()
    };
    // What a list names when it is read whole was not newly listed (R20).
    if reading == Reading::Changes {
        lock_new_ones(tx, escrow, token, &new, &mut changed).await?;
    }
    Ok(Some(changed))
}

/// Those of the devices that any list names now.
async fn listed(
    tx: &mut Tx<'_>,
    organisation: &OrganisationId,
    serials: impl Iterator<Item = &SerialNumber>,
) -> Result<BTreeSet<SerialNumber>> {
    let serials = list(serials.map(SerialNumber::as_str));
    tx.fetch_all(
        "SELECT DISTINCT listed_devices.serial FROM (SELECT value FROM json_each($2)) AS wanted \
         JOIN listed_devices ON listed_devices.organisation = $1 AND listed_devices.serial = wanted.value ->> 0 \
         JOIN server_tokens ON server_tokens.organisation = $1 AND server_tokens.id = listed_devices.server_token \
         WHERE gone_at IS NULL AND removed_at IS NULL",
        params![organisation.as_str(), serials],
    )
    .await?
    .iter()
    .map(|row| {
        row.get::<String>("serial")?
            .parse()
            .map_err(|_| Error::Corrupt("listed_devices.serial"))
    })
    .collect()
}

async fn write_lines(
    tx: &mut Tx<'_>,
    token: &ServerTokenView,
    lines: impl Iterator<Item = &Line>,
) -> Result<()> {
    let now = tx.now();
    let (mut named, mut no_more) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Names(serial, said) => named.push(json!([
                serial,
                said.model,
                said.description,
                said.color,
                said.device_family,
                said.os,
                said.asset_tag,
                said.profile_status,
                said.assigned_by,
                said.assigned_at,
                json!(said.imei).to_string(),
                json!(said.meid).to_string(),
                said.eid,
                said.is_replacement.map(i64::from),
                said.released_by_replacement.map(i64::from),
                said.migration_deadline
            ])),
            Line::NamesNoMore(serial) => no_more.push(serial),
        }
    }
    let (organisation, id) = (token.organisation.as_str(), token.id.as_str());
    tx.execute(
        "INSERT INTO listed_devices (organisation, server_token, serial, model, description, color, device_family, os, \
         asset_tag, profile_status, assigned_by, assigned_at, imei, meid, eid, is_replacement, released_by_replacement, \
         migration_deadline, first_at, last_at, listing_run) SELECT $1, $2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, \
         value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, CAST(value ->> 9 AS BIGINT), value ->> 10, value ->> 11, \
         value ->> 12, CAST(value ->> 13 AS BIGINT), CAST(value ->> 14 AS BIGINT), CAST(value ->> 15 AS BIGINT), $4, $4, \
         (SELECT listing_run FROM server_tokens WHERE organisation = $1 AND id = $2) FROM json_each($3) WHERE true \
         ON CONFLICT (organisation, server_token, serial) DO UPDATE SET model = excluded.model, \
         description = excluded.description, color = excluded.color, device_family = excluded.device_family, \
         os = excluded.os, asset_tag = excluded.asset_tag, profile_status = excluded.profile_status, \
         assigned_by = excluded.assigned_by, assigned_at = excluded.assigned_at, imei = excluded.imei, \
         meid = excluded.meid, eid = excluded.eid, is_replacement = excluded.is_replacement, \
         released_by_replacement = excluded.released_by_replacement, migration_deadline = excluded.migration_deadline, \
         last_at = excluded.last_at, listing_run = excluded.listing_run, gone_at = NULL",
        params![organisation, id, Json::Array(named).to_string(), now],
    )
    .await?;
    tx.execute(
        "UPDATE listed_devices SET gone_at = $4 WHERE organisation = $1 AND server_token = $2 AND gone_at IS NULL \
         AND serial IN (SELECT value ->> 0 FROM json_each($3))",
        params![organisation, id, list(no_more.iter().map(|serial| serial.as_str())), now],
    )
    .await?;
    Ok(())
}

/// The devices that a list read whole no longer names; they are marked as gone.
async fn not_seen_again(tx: &mut Tx<'_>, token: &ServerTokenView) -> Result<Vec<SerialNumber>> {
    let now = tx.now();
    let of_token = || params![token.organisation.as_str(), token.id.as_str()];
    let gone = tx
        .fetch_all(
            "SELECT serial FROM listed_devices WHERE organisation = $1 AND server_token = $2 AND gone_at IS NULL \
             AND listing_run < (SELECT listing_run FROM server_tokens WHERE organisation = $1 AND id = $2)",
            of_token(),
        )
        .await?
        .iter()
        .map(|row| {
            row.get::<String>("serial")?
                .parse()
                .map_err(|_| Error::Corrupt("listed_devices.serial"))
        })
        .collect::<Result<Vec<_>>>()?;
    tx.execute(
        "UPDATE listed_devices SET gone_at = $3 WHERE organisation = $1 AND server_token = $2 AND gone_at IS NULL \
         AND listing_run < (SELECT listing_run FROM server_tokens WHERE organisation = $1 AND id = $2)",
        params![token.organisation.as_str(), token.id.as_str(), now],
    )
    .await?;
    Ok(gone)
}

/// Notes how far the list was read.
async fn advance(
    tx: &mut Tx<'_>,
    token: &ServerTokenView,
    reading: Reading,
    page: &Page,
) -> Result<()> {
    let now = tx.now();
    let ended = !page.more;
    tx.execute(
        "UPDATE server_tokens SET cursor = COALESCE($3, cursor), retry_at = NULL, \
         listing = CASE WHEN $4 = 1 THEN 'changes' ELSE listing END, \
         listed_at = CASE WHEN $4 = 1 THEN $6 ELSE listed_at END, \
         whole_at = CASE WHEN $4 = 1 AND $5 = 1 THEN $6 ELSE whole_at END WHERE organisation = $1 AND id = $2",
        params![
            token.organisation.as_str(),
            token.id.as_str(),
            page.cursor.as_deref(),
            i64::from(ended),
            i64::from(reading == Reading::Whole),
            now
        ],
    )
    .await?;
    Ok(())
}

/// Asks for a lock of each device that is newly listed, where the policy says so, and only so many an hour (R20).
async fn lock_new_ones(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    token: &ServerTokenView,
    new: &[SerialNumber],
    changed: &mut Changed,
) -> Result<()> {
    let organisation = &token.organisation;
    let policy = organisations::by_id(tx, organisation).await?;
    let is_on = policy.is_some_and(|o| o.lock_on_listing && o.listing_paused_at.is_none());
    if new.is_empty() || !is_on {
        return Ok(());
    }
    let actor = Actor::system(POLICY, Permissions::NONE);
    let hour_ago = tx.now().minus(Duration::from_secs(60 * 60));
    let asked: i64 = tx
        .fetch_one(
            "SELECT COUNT(*) AS asked FROM operations WHERE organisation = $1 AND kind = 'lock' AND principal = $2 \
             AND requested_at > $3",
            params![organisation.as_str(), actor.principal(), hour_ago],
        )
        .await?
        .get("asked")?;
    let room = usize::try_from((AUTOMATIC_LOCKS_AN_HOUR - asked).max(0)).unwrap_or(0);
    for serial in new.iter().take(room) {
        if operations::live_of_serial(tx, serial).await?.is_some() {
            continue;
        }
        let wish = Wish {
            serial,
            reason: "newly listed by Apple; the organisation's policy is to lock such devices",
            requester: POLICY,
            message: None,
            server_token: Some(&token.id),
            override_reason: None,
            urgent: false,
            batch: None,
        };
        locks::insert(tx, escrow, &actor, organisation, &wish, &Passed::Free).await?;
        changed.locks += 1;
    }
    if new.len() > room {
        changed.paused = true;
        let now = tx.now();
        tx.execute(
            "UPDATE policies SET listing_paused_at = $2 WHERE organisation = $1",
            params![organisation.as_str(), now],
        )
        .await?;
        let left: Vec<&str> = new[room..].iter().map(SerialNumber::as_str).collect();
        let entry = audit::Entry::by(&actor, organisation, "policy.lock_on_listing")
            .detail("not_locked", left.join(" "))
            .result("paused");
        audit::record(tx, escrow, entry).await?;
    }
    Ok(())
}
