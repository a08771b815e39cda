//! Whom a token speaks for, and its devices.

use apple::dep::{CursorProblem, DepError, DevicePage, OpType};
use sim::dep::DepFault;

use super::*;

/// All pages of a fetch, or of a synchronisation from a cursor.
async fn all(service: &DepService, from: Option<&str>, limit: u16) -> Vec<DevicePage> {
    let mut pages: Vec<DevicePage> = Vec::new();
    loop {
        let cursor = pages.last().and_then(|page| page.cursor.clone());
        let page = match (from, cursor) {
            (None, cursor) => service.fetch_devices(cursor.as_deref(), limit, now()).await,
            (Some(from), cursor) => {
                let cursor = cursor.unwrap_or(from.to_owned());
                service.sync_devices(&cursor, limit, now()).await
            }
        };
        let page = page.unwrap_or_else(|error| panic!("{error}"));
        let more = page.more_to_follow;
        pages.push(page);
        if !more {
            return pages;
        }
    }
}

fn serials(pages: &[DevicePage]) -> Vec<&str> {
    let devices = pages.iter().flat_map(|page| &page.devices);
    devices.map(|device| device.serial.as_str()).collect()
}

#[tokio::test]
async fn an_account_tells_whom_the_token_speaks_for() {
    let organisation = Organisation::new().await;
    let account = organisation.service().account(now()).await.unwrap();
    assert_eq!(account.server_name.as_deref(), Some("Lockwarden"));
    let uuid = account.server_uuid.as_deref();
    assert_eq!(uuid, Some(organisation.token.server_uuid.as_str()));
    assert_eq!(account.org_name.as_deref(), Some("Sim School"));
    assert_eq!(account.org_type.as_deref(), Some("edu"));
    assert_eq!(account.org_id.as_deref(), Some("51135113"));
    assert_eq!(account.admin_id.as_deref(), Some("admin@school.example"));
    assert_eq!(account.org_version, None);
}

#[tokio::test]
async fn all_devices_are_fetched_page_by_page_and_then_what_happened_to_them() {
    let organisation = Organisation::new().await;
    let (dep, token) = (&organisation.dep, &organisation.token);
    for number in 2..=8 {
        let serial = format!("SIMTEST{number:05}");
        dep.assign(token, DepDevice::new(serial, "iPad Air"));
    }
    let phone = DepDevice::new("SIMPHONE0001", "iPhone 17");
    let phone = phone
        .with_imeis(["35 882334 083223 0", "358823340832248", "unknown"])
        .with_meids(["A0000009123456"]);
    let phone = DepDevice {
        is_replacement_device: true,
        mdm_migration_deadline: Some("2027-01-01T00:00:00Z".to_owned()),
        ..phone
    };
    dep.assign(token, phone);

    let service = organisation.service();
    let pages = all(&service, None, 4).await;
    assert_eq!(pages.len(), 3);
    let mut told = serials(&pages);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 9);
    assert!(
        pages
            .iter()
            .all(|page| page.skipped == 0 && page.fetched_until.is_some())
    );
    let phone = pages
        .iter()
        .flat_map(|page| &page.devices)
        .find(|device| device.serial.as_str() == "SIMPHONE0001")
        .unwrap();
    assert_eq!(phone.model.as_deref(), Some("iPhone 17"));
    assert_eq!(phone.device_family.as_deref(), Some("iPhone"));
    let imeis: Vec<&str> = phone.imei.iter().map(|imei| imei.as_str()).collect();
    assert_eq!(imeis, ["358823340832230", "358823340832248"]);
    assert_eq!(phone.meid.len(), 1);
    assert_eq!(phone.is_replacement_device, Some(true));
    assert!(phone.mdm_migration_deadline.is_some());
    assert!(phone.op_type.is_none());

    let cursor = pages.last().unwrap().cursor.clone().unwrap();
    dep.unassign(token, "SIMTEST00002");
    dep.assign(token, DepDevice::new("SIMTEST00003", "iPad Air"));
    dep.assign(token, DepDevice::new("SIMTEST00009", "iPad Air"));
    let news = all(&service, Some(&cursor), 2).await;
    assert_eq!(news.len(), 2);
    let happened: Vec<_> = news
        .iter()
        .flat_map(|page| &page.devices)
        .map(|device| (device.serial.as_str(), device.op_type.clone().unwrap()))
        .collect();
    assert_eq!(
        happened,
        [
            ("SIMTEST00002", OpType::Deleted),
            ("SIMTEST00003", OpType::Modified),
            ("SIMTEST00009", OpType::Added),
        ]
    );
    assert!(
        news[0]
            .devices
            .iter()
            .all(|device| device.op_date.is_some())
    );
    let cursor = news.last().unwrap().cursor.clone().unwrap();
    assert!(serials(&all(&service, Some(&cursor), 2).await).is_empty());
}

#[tokio::test]
async fn a_page_of_none_or_of_too_many_is_not_asked_for() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    for limit in [0, 1, 1000, u16::MAX] {
        // The fake refuses a limit of 0.
        let page = service.fetch_devices(None, limit, now()).await;
        assert_eq!(page.unwrap().devices.len(), 1, "{limit}");
    }
}

#[tokio::test]
async fn a_cursor_that_is_not_taken_says_why_and_what_follows() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let page = service.fetch_devices(None, 100, now()).await.unwrap();
    let cursor = page.cursor.unwrap();
    let problem = async |error: Result<DevicePage, DepError>| {
        let error = error.unwrap_err();
        let words = error.to_string();
        assert!(words.contains("fetched anew"), "{words}");
        match error {
            DepError::CursorInvalid(problem) => problem,
            other => panic!("{other}"),
        }
    };
    for quoted in [false, true] {
        organisation.dep.set_quoted_errors(quoted);
        let used_up = service.fetch_devices(Some(&cursor), 100, now()).await;
        assert_eq!(problem(used_up).await, CursorProblem::Exhausted);
        let foreign = service.sync_devices("MDowOjE", 100, now()).await;
        assert_eq!(problem(foreign).await, CursorProblem::Invalid);
    }
    organisation.dep.expire_cursors();
    let old = service.sync_devices(&cursor, 100, now()).await;
    assert_eq!(problem(old).await, CursorProblem::Expired);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_or_had_says_which() {
    let organisation = Organisation::new().await;
    let service = organisation.service();
    let fetched = async |fault: DepFault| {
        organisation.dep.push_fault(fault.on("/server/devices"));
        service.fetch_devices(None, 100, now()).await.unwrap_err()
    };
    for body in ["", "{}", "<html>sign in to the network</html>", "[]"] {
        let error = fetched(DepFault::status(200).body(body)).await;
        assert!(
            matches!(&error, DepError::Unreadable { status: 200, diagnostic } if diagnostic == body)
        );
    }
    let error = fetched(DepFault::huge_body()).await;
    assert!(matches!(error, DepError::Unreadable { .. }));
    let error = fetched(DepFault::status(404)).await;
    assert!(matches!(error, DepError::Unexpected { status: 404, .. }));
    let error = fetched(DepFault::status(302).location("https://127.0.0.1:1/")).await;
    assert!(matches!(error, DepError::Unexpected { status: 302, .. }));
    let error = fetched(DepFault::status(400).body("MALFORMED_REQUEST_BODY")).await;
    assert!(matches!(error, DepError::Unexpected { status: 400, .. }));
    let error = fetched(DepFault::status(503).retry_after("30")).await;
    let wait = Some(Duration::from_secs(30));
    assert!(matches!(error, DepError::Unavailable { retry_after, .. } if retry_after == wait));
    let error = fetched(DepFault::drop_before()).await;
    assert!(matches!(
        error,
        DepError::Unavailable {
            retry_after: None,
            ..
        }
    ));
}
