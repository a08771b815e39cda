//! Which organisation a token speaks for, and which devices its server has (contract sheet 2.26).
//!
//! A device is known by its serial number; everything else in its record is optional, and what does not parse is left out.

use activation_lock::device::{Imei, Meid, SerialNumber};
use activation_lock::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::DepError;
use super::service::{Call, DepService, Reply};
use super::token::moment;
use crate::redaction;
use crate::unverified::{
    ACCOUNT_PATH, BODY_LIMIT, FETCH_PATH, PAGE_BODY_LIMIT, PAGE_LIMIT, SYNC_PATH,
};

/// The most of a text that is kept, in characters.
const LONGEST: usize = 255;
/// The longest cursor that is taken, in bytes. Apple says up to 1,000 characters.
const LONGEST_CURSOR: usize = 8 * 1024;
/// The most numbers of one kind that are kept of a device, which has two slots.
const MOST_NUMBERS: usize = 8;
/// The most records of a page that are read. Asked for are at most 1,000.
const MOST_RECORDS: usize = 10 * PAGE_LIMIT as usize;

/// Whom a token speaks for. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The name that the server has in the portal.
    pub server_name: Option<String>,
    /// The server's identifier.
    pub server_uuid: Option<String>,
    /// The account of the person who made the token.
    pub admin_id: Option<String>,
    /// An older name of the same.
    pub facilitator_id: Option<String>,
    /// The organisation's name.
    pub org_name: Option<String>,
    /// The organisation's mail address.
    pub org_email: Option<String>,
    /// The organisation's telephone number.
    pub org_phone: Option<String>,
    /// The organisation's postal address.
    pub org_address: Option<String>,
    /// The organisation's number at Apple.
    pub org_id: Option<String>,
    /// `edu` or `org`.
    pub org_type: Option<String>,
    /// `v1` or `v2`: the old programme or Apple Business and School Manager.
    pub org_version: Option<String>,
}

/// A part of the list of devices, or of what happened to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePage {
    /// The devices, in Apple's order.
    pub devices: Vec<DepDevice>,
    /// How many records were left out because their serial number is missing or none.
    pub skipped: usize,
    /// Where the next call goes on. Good for seven days.
    pub cursor: Option<String>,
    /// Whether there is more at once.
    pub more_to_follow: bool,
    /// Until when the list is told.
    pub fetched_until: Option<Timestamp>,
}

/// A device of the organisation that is assigned to the token's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepDevice {
    /// The serial number.
    pub serial: SerialNumber,
    /// The model's name, such as `iPhone XR`: never a product type (contract sheet 1.8).
    pub model: Option<String>,
    /// What it is, in words.
    pub description: Option<String>,
    /// The colour.
    pub color: Option<String>,
    /// `iPad`, `iPhone`, `Mac` and so on.
    pub device_family: Option<String>,
    /// `iOS`, `OSX` and so on.
    pub os: Option<String>,
    /// The organisation's own number for it.
    pub asset_tag: Option<String>,
    /// `empty`, `assigned`, `pushed` or `removed`.
    pub profile_status: Option<String>,
    /// Who assigned it to the server.
    pub device_assigned_by: Option<String>,
    /// When.
    pub device_assigned_date: Option<Timestamp>,
    /// Its IMEIs. Which slot each belongs to is not told (contract sheet 3d).
    pub imei: Vec<Imei>,
    /// Its MEIDs.
    pub meid: Vec<Meid>,
    /// Its EID.
    pub eid: Option<String>,
    /// Whether it came in the place of another one, whose codes it does not share (R5).
    pub is_replacement_device: Option<bool>,
    /// Whether it was released because another one came in its place.
    pub released_by_replacement: Option<bool>,
    /// Until when it moves to another MDM, which ends a lock of ours (contract sheet 5.7).
    pub mdm_migration_deadline: Option<Timestamp>,
    /// What happened to it. Only of a synchronisation.
    pub op_type: Option<OpType>,
    /// When.
    pub op_date: Option<Timestamp>,
}

/// What happened to a device in the list of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpType {
    /// It came.
    Added,
    /// Something of its record changed.
    Modified,
    /// It is the server's no more.
    Deleted,
    /// A word nobody described.
    Other(String),
}

impl DepService {
    /// Whom the token speaks for: `GET /account`. Also the test of a token, for it changes nothing.
    ///
    /// # Errors
    /// See [`DepError`].
    pub async fn account(&self, now: Timestamp) -> Result<Account, DepError> {
        let call = Call {
            path: ACCOUNT_PATH,
            body: None,
            limit: BODY_LIMIT,
            secrets: Vec::new(),
        };
        let reply = self.read(&call, now).await?;
        let said: WireAccount = self.parsed(&reply)?;
        Ok(Account {
            server_name: said.server_name,
            server_uuid: said.server_uuid,
            admin_id: said.admin_id,
            facilitator_id: said.facilitator_id,
            org_name: said.org_name,
            org_email: said.org_email,
            org_phone: said.org_phone,
            org_address: said.org_address,
            org_id: said.org_id,
            org_type: said.org_type,
            org_version: said.org_version,
        })
    }

    /// A page of all devices of the server: from the beginning, or on from the page whose cursor this is. At most `limit` of
    /// them, and 1,000.
    ///
    /// # Errors
    /// See [`DepError`].
    pub async fn fetch_devices(
        &self,
        cursor: Option<&str>,
        limit: u16,
        now: Timestamp,
    ) -> Result<DevicePage, DepError> {
        self.page(FETCH_PATH, cursor, limit, now).await
    }

    /// What happened to the list since the cursor was given, which is the last one of a fetch or of a synchronisation.
    ///
    /// # Errors
    /// See [`DepError`]; [`DepError::CursorInvalid`] means that everything has to be fetched anew.
    pub async fn sync_devices(
        &self,
        cursor: &str,
        limit: u16,
        now: Timestamp,
    ) -> Result<DevicePage, DepError> {
        self.page(SYNC_PATH, Some(cursor), limit, now).await
    }

    async fn page(
        &self,
        path: &'static str,
        cursor: Option<&str>,
        limit: u16,
        now: Timestamp,
    ) -> Result<DevicePage, DepError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<&'a str>,
            limit: u16,
        }
        let limit = limit.clamp(1, PAGE_LIMIT);
        let body =
            serde_json::to_vec(&Body { cursor, limit }).expect("a text and a number are JSON");
        let call = Call {
            path,
            body: Some(Zeroizing::new(body)),
            limit: PAGE_BODY_LIMIT,
            secrets: Vec::new(),
        };
        let reply = self.read(&call, now).await?;
        let said: WirePage = self.parsed(&reply)?;
        page(said).ok_or_else(|| DepError::Unreadable {
            status: reply.status,
            diagnostic: reply.diagnostic(),
        })
    }

    /// The answer to a call that only reads, when it is a 200.
    async fn read(&self, call: &Call, now: Timestamp) -> Result<Reply, DepError> {
        match self.call(call, now).await {
            Ok(reply) if reply.status == 200 => Ok(reply),
            Ok(reply) => Err(DepError::of_reply(&reply, self.is_delegated())),
            Err(failure) => Err(DepError::of_failure(failure)),
        }
    }

    fn parsed<T: for<'de> Deserialize<'de>>(&self, reply: &Reply) -> Result<T, DepError> {
        let said = match reply.is_cut || !reply.is_fit_to_keep() {
            true => None,
            false => serde_json::from_slice(&reply.body).ok(),
        };
        said.ok_or_else(|| DepError::Unreadable {
            status: reply.status,
            diagnostic: reply.diagnostic(),
        })
    }
}

/// The page, when it is one: it has devices or a cursor, and a cursor when there is more.
fn page(said: WirePage) -> Option<DevicePage> {
    let cursor = said.cursor.filter(|cursor| is_cursor(cursor));
    if (said.devices.is_none() || said.more_to_follow) && cursor.is_none() {
        return None;
    }
    let records = said.devices.unwrap_or_default();
    let told = records.len();
    let devices: Vec<DepDevice> = records.into_iter().filter_map(device).collect();
    Some(DevicePage {
        skipped: told - devices.len(),
        devices,
        cursor,
        more_to_follow: said.more_to_follow,
        fetched_until: said.fetched_until,
    })
}

fn is_cursor(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_CURSOR
}

fn device(said: WireDevice) -> Option<DepDevice> {
    Some(DepDevice {
        serial: said.serial_number?.parse().ok()?,
        model: said.model,
        description: said.description,
        color: said.color,
        device_family: said.device_family,
        os: said.os,
        asset_tag: said.asset_tag,
        profile_status: said.profile_status,
        device_assigned_by: said.device_assigned_by,
        device_assigned_date: said.device_assigned_date,
        imei: parsed(&said.imei),
        meid: parsed(&said.meid),
        eid: said.eid,
        is_replacement_device: said.is_replacement_device,
        released_by_replacement: said.released_by_replacement,
        mdm_migration_deadline: said.mdm_migration_deadline,
        op_type: said.op_type.map(|word| match word.as_str() {
            "added" => OpType::Added,
            "modified" => OpType::Modified,
            "deleted" => OpType::Deleted,
            _ => OpType::Other(word),
        }),
        op_date: said.op_date,
    })
}

fn parsed<T: std::str::FromStr>(texts: &[String]) -> Vec<T> {
    let parsed = texts.iter().filter_map(|text| text.parse().ok());
    parsed.take(MOST_NUMBERS).collect()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireAccount {
    #[serde(deserialize_with = "words")]
    server_name: Option<String>,
    #[serde(deserialize_with = "words")]
    server_uuid: Option<String>,
    #[serde(deserialize_with = "words")]
    admin_id: Option<String>,
    #[serde(deserialize_with = "words")]
    facilitator_id: Option<String>,
    #[serde(deserialize_with = "words")]
    org_name: Option<String>,
    #[serde(deserialize_with = "words")]
    org_email: Option<String>,
    #[serde(deserialize_with = "words")]
    org_phone: Option<String>,
    #[serde(deserialize_with = "words")]
    org_address: Option<String>,
    #[serde(deserialize_with = "words")]
    org_id: Option<String>,
    #[serde(deserialize_with = "words")]
    org_type: Option<String>,
    #[serde(deserialize_with = "words")]
    org_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WirePage {
    #[serde(deserialize_with = "records")]
    devices: Option<Vec<WireDevice>>,
    cursor: Option<String>,
    more_to_follow: bool,
    #[serde(deserialize_with = "time")]
    fetched_until: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireDevice {
    #[serde(deserialize_with = "words")]
    serial_number: Option<String>,
    #[serde(deserialize_with = "words")]
    model: Option<String>,
    #[serde(deserialize_with = "words")]
    description: Option<String>,
    #[serde(deserialize_with = "words")]
    color: Option<String>,
    #[serde(deserialize_with = "words")]
    device_family: Option<String>,
    #[serde(deserialize_with = "words")]
    os: Option<String>,
    #[serde(deserialize_with = "words")]
    asset_tag: Option<String>,
    #[serde(deserialize_with = "words")]
    profile_status: Option<String>,
    #[serde(deserialize_with = "words")]
    device_assigned_by: Option<String>,
    #[serde(deserialize_with = "time")]
    device_assigned_date: Option<Timestamp>,
    #[serde(deserialize_with = "texts")]
    imei: Vec<String>,
    #[serde(deserialize_with = "texts")]
    meid: Vec<String>,
    #[serde(deserialize_with = "words")]
    eid: Option<String>,
    #[serde(deserialize_with = "boolean")]
    is_replacement_device: Option<bool>,
    #[serde(deserialize_with = "boolean")]
    released_by_replacement: Option<bool>,
    #[serde(deserialize_with = "time")]
    mdm_migration_deadline: Option<Timestamp>,
    #[serde(deserialize_with = "words")]
    op_type: Option<String>,
    #[serde(deserialize_with = "time")]
    op_date: Option<Timestamp>,
}

/// The records of a page, as long as there are not many times more than any page has: empty ones take a hundred times more memory
/// than text.
fn records<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<WireDevice>>, D::Error> {
    struct Records;
    impl<'de> serde::de::Visitor<'de> for Records {
        type Value = Option<Vec<WireDevice>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MOST_RECORDS} devices")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut from: A,
        ) -> Result<Self::Value, A::Error> {
            let mut records = Vec::new();
            while let Some(record) = from.next_element()? {
                if records.len() == MOST_RECORDS {
                    return Err(serde::de::Error::invalid_length(MOST_RECORDS + 1, &self));
                }
                records.push(record);
            }
            Ok(Some(records))
        }
    }
    from.deserialize_any(Records)
}

/// A text for people, cleaned and cut; nothing when it is something else or empty.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = text(Value::deserialize(from)?);
    let clean = text.map(|text| {
        redaction::readable(&text)
            .trim()
            .chars()
            .take(LONGEST)
            .collect()
    });
    Ok(clean.filter(|text: &String| !text.is_empty()))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = text(Value::deserialize(from)?);
    Ok(text.and_then(|text| moment(&text)))
}

fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    Ok(Value::deserialize(from)?.as_bool())
}

/// A list of texts, or one text alone.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Array(values) => values.into_iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    })
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<DevicePage> {
        page(serde_json::from_str(json).ok()?)
    }

    #[test]
    fn a_record_fills_every_field_that_is_told() {
        let json = r#"{
            "devices": [{
                "serial_number": "C8TJ500QF1MN", "model": "iPhone 17", "description": "IPHONE 17 256GB",
                "color": "BLACK", "asset_tag": "A-1", "device_family": "iPhone", "os": "iOS",
                "profile_status": "pushed", "device_assigned_by": "anna@example.org",
                "device_assigned_date": "2026-02-01T10:00:00Z",
                "imei": ["35 882334 083223 0", "358823340832248"], "meid": ["A0000009123456"],
                "eid": "89049032000000000000000000000001",
                "is_replacement_device": true, "released_by_replacement": false,
                "mdm_migration_deadline": "2026-03-01T00:00:00Z",
                "op_type": "modified", "op_date": "2026-02-02T10:00:00Z",
                "profile_uuid": "1", "something_new": {"a": []}
            }],
            "cursor": "MDow", "more_to_follow": true, "fetched_until": "2026-02-03T00:00:00Z", "new": 1
        }"#;
        let page = read(json).unwrap();
        let device = DepDevice {
            serial: "C8TJ500QF1MN".parse().unwrap(),
            model: Some("iPhone 17".to_owned()),
            description: Some("IPHONE 17 256GB".to_owned()),
            color: Some("BLACK".to_owned()),
            device_family: Some("iPhone".to_owned()),
            os: Some("iOS".to_owned()),
            asset_tag: Some("A-1".to_owned()),
            profile_status: Some("pushed".to_owned()),
            device_assigned_by: Some("anna@example.org".to_owned()),
            device_assigned_date: moment("2026-02-01T10:00:00Z"),
            imei: vec![
                "358823340832230".parse().unwrap(),
                "358823340832248".parse().unwrap(),
            ],
            meid: vec!["A0000009123456".parse().unwrap()],
            eid: Some("89049032000000000000000000000001".to_owned()),
            is_replacement_device: Some(true),
            released_by_replacement: Some(false),
            mdm_migration_deadline: moment("2026-03-01T00:00:00Z"),
            op_type: Some(OpType::Modified),
            op_date: moment("2026-02-02T10:00:00Z"),
        };
        let wanted = DevicePage {
            devices: vec![device],
            skipped: 0,
            cursor: Some("MDow".to_owned()),
            more_to_follow: true,
            fetched_until: moment("2026-02-03T00:00:00Z"),
        };
        assert_eq!(page, wanted);
        assert!(wanted.fetched_until.is_some());
    }

    #[test]
    fn what_does_not_parse_is_left_out_and_the_rest_stands() {
        let page = read(
            r#"{"devices": [
                {"serial_number": "", "model": "x"}, {"model": "x"}, {"serial_number": 5},
                {"serial_number": "C8T J500"}, {},
                {"serial_number": " c8tj500qf1mn ", "model": 7, "color": null, "os": " \u001b ",
                 "imei": ["", "x", 5, null, "358823340832230"], "meid": "A0000009123456",
                 "device_assigned_date": "yesterday", "is_replacement_device": "yes",
                 "op_type": "renamed", "op_date": {}}
            ], "cursor": "c"}"#,
        )
        .unwrap();
        assert_eq!(page.skipped, 5);
        assert!(!page.more_to_follow && page.fetched_until.is_none());
        let device = &page.devices[0];
        assert_eq!(device.serial.as_str(), "C8TJ500QF1MN");
        assert_eq!(
            (&device.model, &device.color, &device.os),
            (&None, &None, &None)
        );
        assert_eq!(device.imei.len(), 1);
        assert_eq!(device.meid.len(), 1);
        assert_eq!(device.device_assigned_date, None);
        assert_eq!(device.is_replacement_device, None);
        assert_eq!(device.op_type, Some(OpType::Other("renamed".to_owned())));
    }

    #[test]
    fn a_page_has_devices_or_a_cursor_and_a_cursor_where_there_is_more() {
        for (json, is_page) in [
            (r#"{"cursor": "c", "more_to_follow": false}"#, true),
            (r#"{"devices": [], "more_to_follow": false}"#, true),
            (r#"{"devices": [], "more_to_follow": true}"#, false),
            (
                r#"{"devices": [], "cursor": "", "more_to_follow": true}"#,
                false,
            ),
            (r#"{"devices": {}, "cursor": "c"}"#, false),
            (r#"{"devices": ["C8TJ500QF1MN"], "cursor": "c"}"#, false),
            ("{}", false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(read(json).is_some(), is_page, "{json}");
        }
    }

    #[test]
    fn a_page_of_many_empty_records_is_not_read() {
        let page = |records: usize| {
            read(&format!(
                "{{\"devices\":[{}],\"cursor\":\"c\"}}",
                vec!["{}"; records].join(",")
            ))
        };
        assert_eq!(page(MOST_RECORDS).unwrap().skipped, MOST_RECORDS);
        assert!(page(MOST_RECORDS + 1).is_none());
        assert!(read(r#"{"devices":null,"cursor":"c"}"#).is_some());
    }
}
