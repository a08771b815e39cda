//! The devices of the organisation, and the test of an account.

use apple::business_manager::{BusinessError, Tested};
use sim::{AccountKind, BusinessFault, OrgDevice};

use super::{Stage, account_with, serial, service};
use crate::support::{SERIAL, now};

#[tokio::test]
async fn a_device_is_read_with_its_identifiers() {
    let stage = Stage::new().await;
    stage.business.add_device(
        OrgDevice::new("SIMTEST00002", "iPhone17,3")
            .with_imeis(["35 882334 083223 0", "358823340832248"])
            .with_meids(["A0000009123456", "none"]),
    );
    let service = stage.service();
    let device = service.org_device(&serial("SIMTEST00002"), now()).await;
    let device = device.unwrap().expect("the organisation has it");
    assert_eq!(device.serial, serial("SIMTEST00002"));
    assert_eq!(device.product_type, "iPhone17,3".parse().ok());
    assert_eq!(device.product_family.as_deref(), Some("iPhone"));
    assert_eq!(device.status.as_deref(), Some("ASSIGNED"));
    let imeis: Vec<_> = device.imei.iter().map(|imei| imei.as_str()).collect();
    assert_eq!(imeis, ["358823340832230", "358823340832248"]);
    assert_eq!(device.meid.len(), 1, "what is none is left out");
    assert!(device.added.is_some() && device.updated.is_none());
    let unknown = service.org_device(&serial("SIMTEST00003"), now()).await;
    assert_eq!(unknown, Ok(None));
}

#[tokio::test]
async fn a_list_is_read_page_by_page_to_its_end() {
    let stage = Stage::new().await;
    for number in 0..24 {
        let serial = format!("SIMLIST{number:05}");
        stage.business.add_device(OrgDevice::new(serial, "iPad4,1"));
    }
    let service = stage.service();
    let (mut found, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = service.org_devices(cursor.as_deref(), 10, now()).await;
        let page = page.unwrap();
        assert_eq!(page.passed_over, 0);
        found.extend(page.items.into_iter().map(|device| device.serial));
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((found.len(), pages), (25, 3));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 25);
    // More and less than a page may have is asked for as the most and the least.
    let all = service.org_devices(None, 5000, now()).await.unwrap();
    assert_eq!((all.items.len(), all.next), (25, None));
    let one = service.org_devices(None, 0, now()).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let lost = service.org_devices(Some("lost"), 10, now()).await;
    assert!(
        matches!(lost, Err(BusinessError::Unexpected { status: 400, .. })),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_test_says_what_works() {
    let stage = Stage::new().await;
    assert_eq!(stage.service().test(now()).await, Tested::Works);
    let call = &stage.business.journal().all()[1];
    assert_eq!(call.path, "/v1/orgDevices");

    stage.business.deny(&stage.account, true);
    let tested = stage.service().test(now()).await;
    assert!(
        matches!(tested, Tested::TokenOnly(BusinessError::Credential(_))),
        "{tested}"
    );
    let words = tested.to_string();
    assert!(words.contains("was given an access token") && words.contains("(403)"));

    let other = stage.business.issue_account(AccountKind::Business);
    let mixed = account_with(&stage.account, &other.private_key_pem);
    let tested = service(&stage.settings(), mixed).test(now()).await;
    assert!(
        matches!(tested, Tested::Nothing(BusinessError::Credential(_))),
        "{tested}"
    );

    stage.business.push_fault(BusinessFault::status(503));
    let tested = stage.service().test(now()).await;
    assert!(
        matches!(tested, Tested::Nothing(BusinessError::Unavailable { .. })),
        "{tested}"
    );
}

/// As the server asks: in tasks that move between threads.
#[tokio::test]
async fn each_question_can_be_asked_in_a_task_of_its_own() {
    let stage = Stage::new().await;
    let service = stage.service();
    let (one, many) = (service.clone(), service.clone());
    let device = tokio::spawn(async move { one.org_device(&serial(SERIAL), now()).await });
    let page = tokio::spawn(async move { many.org_devices(None, 1, now()).await });
    let tested = tokio::spawn(async move { service.test(now()).await });
    assert!(device.await.unwrap().unwrap().is_some());
    assert_eq!(page.await.unwrap().unwrap().items.len(), 1);
    assert_eq!(tested.await.unwrap(), Tested::Works);
}
