//! The devices of the organisation, as Apple lists them.

use std::collections::HashMap;

use activation_lock::device::{Imei, Meid, ProductType, SerialNumber};
use activation_lock::time::Timestamp;
use form_urlencoded::Serializer;
use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::{ANSWER_LIMIT, BusinessError, BusinessService, ErrorResponse, Reply, device_path};
use crate::redaction;
use crate::unverified::{ORG_DEVICES_PAGE, ORG_DEVICES_PATH, PATH_ERROR};

/// The most of a page that is read, in bytes.
const PAGE_LIMIT: usize = 16 * 1024 * 1024;
/// The most of a text that is kept, in characters.
const TEXT_LIMIT: usize = 200;

/// A device that the organisation owns. What Apple does not say, or says in a form that is not one, is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgDevice {
    /// The serial number, which is Apple's id of the device as well.
    pub serial: SerialNumber,
    /// The hardware identifier, such as `iPad4,1`.
    pub product_type: Option<ProductType>,
    /// The model's name, such as `iPad Air`.
    pub device_model: Option<String>,
    /// The family, such as `iPad`.
    pub product_family: Option<String>,
    /// The IMEIs, in the order of the list, which names no slots (R18).
    pub imei: Vec<Imei>,
    /// The MEIDs, in the order of the list.
    pub meid: Vec<Meid>,
    /// Whether it is assigned to a device management service: `ASSIGNED`, `UNASSIGNED`, or another word.
    pub status: Option<String>,
    /// When it was added to the organisation.
    pub added: Option<Timestamp>,
    /// When Apple's record of it was last changed.
    pub updated: Option<Timestamp>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to ask the next page with; `None` on the last one.
    pub next: Option<String>,
    /// How many entries were passed over, because nothing names them.
    pub passed_over: usize,
}

impl BusinessService {
    /// Asks for one device; `None` when the organisation does not manage it.
    ///
    /// # Errors
    /// When Apple said nothing about the device, and why.
    pub async fn org_device(
        &self,
        serial: &SerialNumber,
        now: Timestamp,
    ) -> Result<Option<OrgDevice>, BusinessError> {
        let reply = self
            .get(&device_path(serial), None, ANSWER_LIMIT, now)
            .await?;
        read_device(reply, serial)
    }

    /// Asks for a page of at most `limit` devices (at least 1, at most 1,000): the first, or the one that a `cursor` of the
    /// page before names.
    ///
    /// # Errors
    /// When there is no page, and why; also when what follows it cannot be told, so that a list is whole or an error.
    pub async fn org_devices(
        &self,
        cursor: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Page<OrgDevice>, BusinessError> {
        let reply = self
            .get(
                ORG_DEVICES_PATH,
                Some(&page_query(cursor, limit)),
                PAGE_LIMIT,
                now,
            )
            .await?;
        read_page(reply, cursor)
    }
}

fn page_query(cursor: Option<&str>, limit: usize) -> String {
    let limit = limit.clamp(1, ORG_DEVICES_PAGE).to_string();
    let mut query = Serializer::new(String::new());
    query.append_pair("limit", &limit);
    if let Some(cursor) = cursor {
        query.append_pair("cursor", cursor);
    }
    query.finish()
}

#[derive(Deserialize)]
struct One {
    data: Resource,
}

#[derive(Deserialize)]
struct Many {
    data: Vec<Resource>,
    #[serde(default)]
    links: Option<Links>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Resource {
    id: String,
    #[serde(default)]
    attributes: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Links {
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Paging {
    #[serde(default)]
    next_cursor: Option<String>,
}

pub(crate) fn read_device(
    reply: Reply,
    serial: &SerialNumber,
) -> Result<Option<OrgDevice>, BusinessError> {
    match (reply.status, ErrorResponse::read(&reply.body)) {
        (200, _) => {
            let One { data } = reply.json()?;
            match device(data) {
                Some(device) if device.serial == *serial => Ok(Some(device)),
                _ => Err(reply.unexpected("the answer is not about this device")),
            }
        }
        (404, Some(response)) if !response.has_code(PATH_ERROR) => Ok(None),
        (404, None) if reply.body.is_empty() => Ok(None),
        _ => Err(reply.failure()),
    }
}

pub(crate) fn read_page(
    reply: Reply,
    cursor: Option<&str>,
) -> Result<Page<OrgDevice>, BusinessError> {
    if reply.status != 200 {
        return Err(reply.failure());
    }
    let page: Many = reply.json()?;
    let link = page.links.and_then(|links| links.next);
    let next = page
        .meta
        .and_then(|meta| meta.paging)
        .and_then(|paging| paging.next_cursor)
        .filter(|cursor| !cursor.is_empty())
        .or_else(|| cursor_of(link.as_deref()?));
    if next.is_none() && link.is_some() {
        return Err(reply.unexpected("there is a next page, and nothing to ask it with"));
    }
    if next.is_some() && next.as_deref() == cursor {
        return Err(reply.unexpected("the next page is this one again"));
    }
    let listed = page.data.len();
    let items: Vec<OrgDevice> = page.data.into_iter().filter_map(device).collect();
    Ok(Page {
        passed_over: listed - items.len(),
        items,
        next,
    })
}

/// The cursor in the link to the next page. The link itself is never followed: it could lead anywhere.
fn cursor_of(link: &str) -> Option<String> {
    // Only the query matters, and a link may leave the host out.
    let base = Url::parse("https://localhost").ok()?;
    let link = base.join(link).ok()?;
    let mut query: HashMap<_, _> = link.query_pairs().into_owned().collect();
    query.remove("cursor").filter(|cursor| !cursor.is_empty())
}

fn device(resource: Resource) -> Option<OrgDevice> {
    let attributes = resource.attributes.unwrap_or_default();
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let kept = |name: &str| {
        let text = redaction::without_shapes(&redaction::readable(text(name)?));
        let text: String = text.trim().chars().take(TEXT_LIMIT).collect();
        (!text.is_empty()).then_some(text)
    };
    let serial = text("serialNumber")
        .and_then(|serial| serial.parse().ok())
        .or_else(|| resource.id.parse().ok())?;
    Some(OrgDevice {
        serial,
        product_type: text("productType").and_then(|kind| kind.parse().ok()),
        device_model: kept("deviceModel"),
        product_family: kept("productFamily"),
        imei: each(attributes.get("imei")),
        meid: each(attributes.get("meid")),
        status: kept("status"),
        added: text("addedToOrgDateTime").and_then(moment),
        updated: text("updatedDateTime").and_then(moment),
    })
}

/// What can be read of a list, or of a single text in its place.
fn each<T: std::str::FromStr>(value: Option<&Value>) -> Vec<T> {
    let texts = match value {
        Some(Value::Array(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    texts
        .iter()
        .filter_map(|text| text.as_str()?.parse().ok())
        .collect()
}

fn moment(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000)
        .ok()
        .map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str, cursor: Option<&str>) -> Result<Page<OrgDevice>, BusinessError> {
        read_page(Reply::of(200, body), cursor)
    }

    #[test]
    fn a_device_is_read_and_what_is_no_value_is_left_out() {
        let body = r#"{"data":[
            {"type":"orgDevices","id":"SIMTEST00001","attributes":{"serialNumber":"SIMTEST00001","productType":"iPhone17,3",
             "deviceModel":"iPhone 16","productFamily":"iPhone","imei":["35 882334 083223 0","x",7,"358823340832248"],
             "meid":["a0000009123456"],"status":"ASSIGNED","addedToOrgDateTime":"2026-01-01T00:00:00.321Z",
             "updatedDateTime":"2026-01-01T01:00:00+01:00","new":{}}},
            {"id":"simtest00002","attributes":{"serialNumber":"?","productType":"iPhone","deviceModel":" ","imei":"358823340832230",
             "meid":null,"status":5,"addedToOrgDateTime":"yesterday"}},
            {"id":"SIMTEST00003"},
            {"id":"no serial","attributes":{}}]}"#;
        let page = page(body, None).unwrap();
        assert_eq!((page.items.len(), page.passed_over), (3, 1));
        assert_eq!(page.next, None);
        let imei = |text: &str| text.parse::<Imei>().unwrap();
        assert_eq!(
            page.items[0],
            OrgDevice {
                serial: "SIMTEST00001".parse().unwrap(),
                product_type: "iPhone17,3".parse().ok(),
                device_model: Some("iPhone 16".to_owned()),
                product_family: Some("iPhone".to_owned()),
                imei: vec![imei("358823340832230"), imei("358823340832248")],
                meid: vec!["A0000009123456".parse().unwrap()],
                status: Some("ASSIGNED".to_owned()),
                added: Some(Timestamp(1_767_225_600_321)),
                updated: Some(Timestamp(1_767_225_600_000)),
            }
        );
        let empty = |serial: &str| OrgDevice {
            serial: serial.parse().unwrap(),
            product_type: None,
            device_model: None,
            product_family: None,
            imei: Vec::new(),
            meid: Vec::new(),
            status: None,
            added: None,
            updated: None,
        };
        let second = OrgDevice {
            imei: vec![imei("358823340832230")],
            ..empty("SIMTEST00002")
        };
        assert_eq!(page.items[1], second);
        assert_eq!(page.items[2], empty("SIMTEST00003"));
    }

    #[test]
    fn the_next_page_is_found_by_its_cursor_and_no_link_is_followed() {
        for (rest, next) in [
            ("", None),
            (
                r#","links":{"next":null},"meta":{"paging":{"total":1}}"#,
                None,
            ),
            (r#","meta":{"paging":{"nextCursor":"a=b"}}"#, Some("a=b")),
            (r#","meta":{"paging":{"nextCursor":""}}"#, None),
            (
                r#","links":{"next":"https://elsewhere.example/v1/orgDevices?limit=1&cursor=a%3Db"}"#,
                Some("a=b"),
            ),
            (r#","links":{"next":"/v1/orgDevices?cursor=c"}"#, Some("c")),
        ] {
            let body = format!(r#"{{"data":[]{rest}}}"#);
            assert_eq!(page(&body, None).unwrap().next.as_deref(), next, "{rest}");
        }
    }

    #[test]
    fn a_list_is_whole_or_an_error() {
        for (body, cursor) in [
            (
                r#"{"data":[],"links":{"next":"/v1/orgDevices?limit=1"}}"#,
                None,
            ),
            (r#"{"data":[],"links":{"next":"https://["}}"#, None),
            (
                r#"{"data":[],"meta":{"paging":{"nextCursor":"a"}}}"#,
                Some("a"),
            ),
            (r#"{"data":{}}"#, None),
            ("{}", None),
        ] {
            let error = page(body, cursor).unwrap_err();
            assert!(matches!(error, BusinessError::Unexpected { .. }), "{body}");
        }
        let broken = page(r#"{"data":[{"id":"SIMTEST00001"}"#, None).unwrap_err();
        assert!(matches!(broken, BusinessError::Unavailable { .. }));
        let missing = read_page(Reply::of(404, ""), None).unwrap_err();
        assert!(matches!(missing, BusinessError::Unexpected { .. }));
    }

    #[test]
    fn one_device_is_the_one_that_was_asked_for() {
        let serial: SerialNumber = "SIMTEST00001".parse().unwrap();
        let read = |status, body: &str| read_device(Reply::of(status, body), &serial);
        let device = |id: &str| format!(r#"{{"data":{{"id":"{id}","attributes":{{}}}}}}"#);
        assert_eq!(
            read(200, &device("simtest00001")).unwrap().unwrap().serial,
            serial
        );
        for body in [device("SIMTEST00002"), device("?"), "{}".to_owned()] {
            assert!(matches!(
                read(200, &body),
                Err(BusinessError::Unexpected { .. })
            ));
        }
        let not_found = r#"{"errors":[{"code":"NOT_FOUND"}]}"#;
        assert_eq!(read(404, not_found), Ok(None));
        assert!(read(404, r#"{"errors":[{"code":"PATH_ERROR.X"}]}"#).is_err());
        assert!(matches!(
            read(500, not_found),
            Err(BusinessError::Unavailable { .. })
        ));
    }
}
