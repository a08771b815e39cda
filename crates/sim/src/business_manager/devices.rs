//! The organisation's devices, as the API describes them.

use std::{collections::BTreeMap, ops::Bound};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A device of the organisation. Texts and lists that are empty are left out of answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct OrgDevice {
    /// The serial number, which is also the identifier.
    pub serial_number: String,
    /// When it was added, such as `2026-01-31T12:00:00Z`.
    pub added_to_org_date_time: String,
    /// A name as people say it, such as `iMac 21.5"`.
    pub device_model: String,
    /// `iPhone`, `iPad`, `Mac`, `AppleTV`, `Watch`, `Vision`.
    pub product_family: String,
    /// The hardware identifier, such as `iMac16,2`.
    pub product_type: String,
    /// Such as `64GB`.
    pub device_capacity: String,
    /// The order number of the model.
    pub part_number: String,
    /// The colour.
    pub color: String,
    /// `ASSIGNED` or `UNASSIGNED`.
    pub status: String,
    /// The order it came with.
    pub order_number: String,
    /// 15 digits each, in no order that is documented.
    pub imei: Vec<String>,
    /// 14 hexadecimal digits each.
    pub meid: Vec<String>,
    /// Of an eSIM.
    pub eid: String,
}

/// The attributes a client may ask for by name.
pub(super) const ATTRIBUTES: [&str; 13] = [
    "serialNumber",
    "addedToOrgDateTime",
    "deviceModel",
    "productFamily",
    "productType",
    "deviceCapacity",
    "partNumber",
    "color",
    "status",
    "orderNumber",
    "imei",
    "meid",
    "eid",
];

impl OrgDevice {
    /// A device of this product type, assigned to a server; the family is told from the product type.
    pub fn new(serial: impl Into<String>, product_type: impl Into<String>) -> Self {
        let product_type = product_type.into();
        let (family, model) = match product_type.as_str() {
            name if name.starts_with("iPhone") => ("iPhone", "iPhone"),
            name if name.starts_with("iPad") => ("iPad", "iPad"),
            name if name.starts_with("AppleTV") => ("AppleTV", "Apple TV"),
            name if name.starts_with("Watch") => ("Watch", "Apple Watch"),
            name if name.starts_with("RealityDevice") => ("Vision", "Apple Vision Pro"),
            _ => ("Mac", "Mac"),
        };
        Self {
            serial_number: serial.into(),
            added_to_org_date_time: "2026-01-31T12:00:00Z".to_owned(),
            device_model: model.to_owned(),
            product_family: family.to_owned(),
            product_type,
            device_capacity: "64GB".to_owned(),
            part_number: "FD311LL/A".to_owned(),
            color: "SILVER".to_owned(),
            status: "ASSIGNED".to_owned(),
            order_number: "1234567890".to_owned(),
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

    /// Its resource object, with the attributes asked for.
    pub(super) fn resource(&self, wanted: Option<&[String]>, url: &str) -> Value {
        let all = serde_json::to_value(self).unwrap_or_default();
        let Value::Object(all) = all else {
            return Value::Null;
        };
        let is_empty = |value: &Value| *value == json!("") || *value == json!([]);
        let attributes: Map<String, Value> = all
            .into_iter()
            .filter(|(_, value)| !is_empty(value))
            .filter(|(key, _)| wanted.is_none_or(|wanted| wanted.contains(key)))
            .collect();
        let link = format!("{url}/v1/orgDevices/{}", self.serial_number);
        json!({
            "type": "orgDevices",
            "id": self.serial_number,
            "attributes": attributes,
            "relationships": {
                "assignedServer": {
                    "links": {
                        "self": format!("{link}/relationships/assignedServer"),
                        "related": format!("{link}/assignedServer"),
                    },
                },
            },
            "links": { "self": link },
        })
    }
}

/// All devices, in the order of their serial numbers.
pub(super) type Devices = BTreeMap<String, OrgDevice>;

/// Some of the devices, from after this serial number on, and whether there are more.
pub(super) fn page<'a>(
    devices: &'a Devices,
    after: Option<&str>,
    limit: usize,
) -> (Vec<&'a OrgDevice>, bool) {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = devices.range::<str, _>((start, Bound::Unbounded));
    let page = rest
        .by_ref()
        .take(limit)
        .map(|(_, device)| device)
        .collect();
    (page, rest.next().is_some())
}
