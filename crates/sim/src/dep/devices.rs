//! The devices assigned to one server, as the enrolment service lists them. Contract sheet 2.26 and Apple's pages on fetching
//! and syncing.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A device as the enrolment service describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DepDevice {
    /// The serial number.
    pub serial_number: String,
    /// A name as people say it, such as `iPhone XR`: not the product type.
    pub model: String,
    /// Colour, capacity and so on, in one line.
    pub description: String,
    /// The colour.
    pub color: String,
    /// The organisation's own number; empty: none.
    pub asset_tag: String,
    /// `iPhone`, `iPad`, `Mac`, `AppleTV`, `Watch`, `Vision`.
    pub device_family: String,
    /// `iOS`, `OSX`, `tvOS`, ...
    pub os: String,
    /// `empty`, `assigned`, `pushed` or `removed`.
    pub profile_status: String,
    /// The account that assigned the device.
    pub device_assigned_by: String,
    /// When it was assigned, such as `2026-01-31T12:00:00Z`, told as it stands here; none: when the fake was told of it.
    pub device_assigned_date: Option<String>,
    /// From protocol 10 on. In which order, Apple does not say.
    pub imei: Vec<String>,
    /// From protocol 10 on.
    pub meid: Vec<String>,
    /// From protocol 10 on.
    pub eid: Option<String>,
    /// From protocol 10 on: it came in place of a broken one.
    pub is_replacement_device: bool,
    /// From protocol 10 on: it left because another came in its place.
    pub released_by_replacement: bool,
    /// From protocol 8 on: until when the device must have moved to another MDM.
    pub mdm_migration_deadline: Option<String>,
}

impl DepDevice {
    /// A device of this model; the family is told from the model's name.
    pub fn new(serial: impl Into<String>, model: impl Into<String>) -> Self {
        let model = model.into();
        let (device_family, os) = match model.as_str() {
            model if model.contains("iPhone") => ("iPhone", "iOS"),
            model if model.contains("Mac") => ("Mac", "OSX"),
            model if model.contains("TV") => ("AppleTV", "tvOS"),
            model if model.contains("Watch") => ("Watch", "watchOS"),
            model if model.contains("Vision") => ("Vision", "visionOS"),
            _ => ("iPad", "iOS"),
        };
        Self {
            serial_number: serial.into(),
            description: model.to_uppercase(),
            model,
            color: "SPACE GRAY".to_owned(),
            device_family: device_family.to_owned(),
            os: os.to_owned(),
            profile_status: "empty".to_owned(),
            device_assigned_by: "admin@school.example".to_owned(),
            ..Self::default()
        }
    }

    /// With these IMEIs, in no order.
    #[must_use]
    pub fn with_imeis<T: Into<String>>(mut self, imeis: impl IntoIterator<Item = T>) -> Self {
        self.imei = imeis.into_iter().map(Into::into).collect();
        self
    }

    /// With these MEIDs.
    #[must_use]
    pub fn with_meids<T: Into<String>>(mut self, meids: impl IntoIterator<Item = T>) -> Self {
        self.meid = meids.into_iter().map(Into::into).collect();
        self
    }

    /// What a server that speaks this protocol is told.
    fn record(&self, protocol: u32) -> Map<String, Value> {
        let mut record = Map::new();
        let texts = [
            ("serial_number", &self.serial_number),
            ("model", &self.model),
            ("description", &self.description),
            ("color", &self.color),
            ("asset_tag", &self.asset_tag),
            ("device_family", &self.device_family),
            ("os", &self.os),
            ("profile_status", &self.profile_status),
            ("device_assigned_by", &self.device_assigned_by),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            record.insert(key.to_owned(), json!(text));
        }
        if let Some(date) = &self.device_assigned_date {
            record.insert("device_assigned_date".to_owned(), json!(date));
        }
        if let Some(date) = self
            .mdm_migration_deadline
            .as_ref()
            .filter(|_| protocol >= 8)
        {
            record.insert("mdm_migration_deadline".to_owned(), json!(date));
        }
        if protocol >= 10 {
            for (key, numbers) in [("imei", &self.imei), ("meid", &self.meid)] {
                if !numbers.is_empty() {
                    record.insert(key.to_owned(), json!(numbers));
                }
            }
            if let Some(eid) = &self.eid {
                record.insert("eid".to_owned(), json!(eid));
            }
            for (key, flag) in [
                ("is_replacement_device", self.is_replacement_device),
                ("released_by_replacement", self.released_by_replacement),
            ] {
                record.insert(key.to_owned(), json!(flag));
            }
        }
        record
    }
}

/// As Apple writes times: `2026-01-31T12:00:00Z`.
pub(super) fn date_text(date: OffsetDateTime) -> String {
    let whole = date.replace_nanosecond(0).unwrap_or(date);
    whole
        .format(&Rfc3339)
        .expect("a time of this era can be written")
}

/// What happened to a device.
#[derive(Clone, Copy)]
enum Op {
    Added,
    Modified,
    Deleted,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
        }
    }
}

struct Event {
    at: OffsetDateTime,
    op: Op,
    /// As it was then.
    device: DepDevice,
}

/// Where a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a full fetch that began when there were `began` events: after the device that the event `after` added.
    Fetch { began: u64, after: u64 },
    /// After so many events.
    Sync { seen: u64 },
}

/// A part of a list.
pub(super) struct Page {
    pub(super) devices: Vec<Value>,
    pub(super) more: bool,
    pub(super) next: Place,
}

/// The devices of one server, and what happened to them.
#[derive(Default)]
pub(super) struct Assigned {
    /// By the number of the event that added them, so that a full fetch has an order.
    devices: BTreeMap<u64, DepDevice>,
    by_serial: HashMap<String, u64>,
    events: Vec<Event>,
}

impl Assigned {
    /// Adds the device, or changes what is said of it.
    pub(super) fn put(&mut self, mut device: DepDevice, at: OffsetDateTime) {
        device
            .device_assigned_date
            .get_or_insert_with(|| date_text(at));
        let number = self.seen();
        let (op, place) = match self.by_serial.get(&device.serial_number) {
            Some(place) => (Op::Modified, *place),
            None => (Op::Added, number),
        };
        self.by_serial.insert(device.serial_number.clone(), place);
        self.devices.insert(place, device.clone());
        self.events.push(Event { at, op, device });
    }

    /// Takes the device away, if it is there.
    pub(super) fn remove(&mut self, serial: &str, at: OffsetDateTime) {
        let Some(place) = self.by_serial.remove(serial) else {
            return;
        };
        if let Some(device) = self.devices.remove(&place) {
            let op = Op::Deleted;
            self.events.push(Event { at, op, device });
        }
    }

    pub(super) fn get(&self, serial: &str) -> Option<&DepDevice> {
        self.devices.get(self.by_serial.get(serial)?)
    }

    /// A device's whole record.
    pub(super) fn record(&self, serial: &str, protocol: u32) -> Option<Map<String, Value>> {
        Some(self.get(serial)?.record(protocol))
    }

    /// How many events there were.
    pub(super) fn seen(&self) -> u64 {
        self.events.len() as u64
    }

    /// A part of the list of all devices, from the beginning or from such a place on.
    pub(super) fn fetch(&self, from: Option<(u64, u64)>, limit: usize, protocol: u32) -> Page {
        let (began, start) = match from {
            None => (self.seen(), Bound::Unbounded),
            Some((began, after)) => (began, Bound::Excluded(after)),
        };
        // What was added since is for the synchronisation that follows.
        let mut rest = self
            .devices
            .range((start, Bound::Unbounded))
            .take_while(|(place, _)| **place < began)
            .peekable();
        let mut devices = Vec::new();
        let mut last = 0;
        while devices.len() < limit
            && let Some((place, device)) = rest.next()
        {
            last = *place;
            devices.push(Value::Object(device.record(protocol)));
        }
        let more = rest.peek().is_some();
        let next = if more {
            Place::Fetch { began, after: last }
        } else {
            Place::Sync { seen: began }
        };
        Page {
            devices,
            more,
            next,
        }
    }

    /// A part of what happened since; oldest first, and a device as often as something happened to it.
    pub(super) fn sync(&self, seen: u64, limit: usize, protocol: u32) -> Page {
        let seen = usize::try_from(seen).unwrap_or(usize::MAX);
        let events = self.events.get(seen..).unwrap_or_default();
        let part = &events[..limit.min(events.len())];
        Page {
            devices: part.iter().map(|event| event.record(protocol)).collect(),
            more: part.len() < events.len(),
            next: Place::Sync {
                seen: (seen + part.len()) as u64,
            },
        }
    }
}

impl Event {
    fn record(&self, protocol: u32) -> Value {
        let mut record = match self.op {
            Op::Added | Op::Modified => self.device.record(protocol),
            // Of a device that is gone not more is told than which one it was.
            Op::Deleted => {
                Map::from_iter([("serial_number".to_owned(), json!(self.device.serial_number))])
            }
        };
        if matches!(self.op, Op::Deleted) && protocol >= 10 && self.device.released_by_replacement {
            record.insert("released_by_replacement".to_owned(), json!(true));
        }
        record.insert("op_type".to_owned(), json!(self.op.name()));
        record.insert("op_date".to_owned(), json!(date_text(self.at)));
        Value::Object(record)
    }
}

impl Place {
    /// In bytes, for a cursor.
    pub(super) fn to_bytes(self) -> [u8; 17] {
        let (kind, first, second) = match self {
            Self::Fetch { began, after } => (0, began, after),
            Self::Sync { seen } => (1, seen, 0),
        };
        let mut bytes = [kind; 17];
        bytes[1..9].copy_from_slice(&first.to_be_bytes());
        bytes[9..].copy_from_slice(&second.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, numbers) = bytes.split_first()?;
        let (first, second) = numbers.split_at_checked(8)?;
        let first = u64::from_be_bytes(first.try_into().ok()?);
        let second = u64::from_be_bytes(second.try_into().ok()?);
        match kind {
            0 => Some(Self::Fetch {
                began: first,
                after: second,
            }),
            1 => Some(Self::Sync { seen: first }),
            _ => None,
        }
    }
}
