//! Apple's lists, read from its fakes: R20, T27, T28.

use escrow::coverage::CoverageState;

use super::*;

async fn lock_on_listing(stage: &Stage) {
    let permit = stage.permit("policy").await;
    let organisations = stage.escrow().organisations();
    organisations
        .set_lock_on_listing(&permit, true)
        .await
        .unwrap();
}

#[tokio::test]
async fn r20_a_first_full_list_locks_nothing_and_a_device_that_comes_later_is_locked() {
    let stage = Stage::new().await;
    lock_on_listing(&stage).await;
    let token = stage.dep.issue_token("A server");
    for n in 0..2_500 {
        let serial = format!("SIMLIST{n:05}");
        stage.dep.assign(&token, DepDevice::new(serial, "iPad"));
    }
    stage.keep_token(&token).await;
    stage
        .until("the list to be read", async || {
            let tokens = stage.escrow().server_tokens().all().await.unwrap();
            tokens[0].whole_at.is_some()
        })
        .await;
    assert!(stage.find("SIMLIST02499").await.is_some());
    stage.known_to_apple(SERIAL);
    stage.dep.assign(&token, DepDevice::new(SERIAL, "iPad"));
    stage.listed(SERIAL).await;
    stage
        .until("the new one to be locked", async || {
            stage.apple.lock_state(SERIAL) == Some(LockKind::Mdm)
        })
        .await;
    let locked = stage
        .dep
        .journal()
        .all()
        .into_iter()
        .filter(|call| call.path == LOCK);
    assert_eq!(locked.count(), 1);
}

#[tokio::test]
async fn r20_a_token_of_another_server_begins_a_list_of_its_own_and_locks_nothing() {
    let stage = Stage::new().await;
    lock_on_listing(&stage).await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    let other = stage.dep.issue_token("Another server");
    for n in 0..5 {
        let serial = format!("SIMOTHER{n:04}");
        stage.known_to_apple(&serial);
        stage.dep.assign(&other, DepDevice::new(serial, "iPad"));
    }
    stage.keep_token(&other).await;
    let found = async || {
        stage
            .escrow()
            .server_tokens()
            .all()
            .await
            .unwrap()
            .remove(0)
    };
    stage
        .until("the list of the other server", async || {
            stage.find("SIMOTHER0004").await.is_some() && found().await.whole_at.is_some()
        })
        .await;
    let kept = found().await;
    assert_eq!(kept.server_name.as_deref(), Some("Another server"));
    let queue = stage
        .escrow()
        .operations()
        .queue(escrow::operations::Kind::Lock)
        .await
        .unwrap();
    assert_eq!(queue.live, 0, "nothing of it is newly listed");
    let gone = stage.view(SERIAL).await.listings;
    assert!(
        gone.iter().all(|one| one.gone_at.is_some()),
        "it is on this list no more"
    );
}

#[tokio::test]
async fn t28_a_device_taken_from_the_list_keeps_its_codes_and_an_expired_cursor_begins_anew() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    stage.assigned(&token, SERIAL).await;
    stage.assigned(&token, "SIMLOCK00002").await;
    stage.type_code(SERIAL, CODE_A).await;
    stage.dep.unassign(&token, SERIAL);
    stage.read_list().await;
    let suspect = async |serial: &str| stage.view(serial).await.summary.suspect;
    stage
        .until("the device to be unlisted", async || {
            suspect(SERIAL).await.as_deref() == Some("unlisted")
        })
        .await;
    assert_eq!(stage.view(SERIAL).await.codes.len(), 1);
    // A week away: the cursor is worth nothing, and the list is read whole.
    stage.dep.unassign(&token, "SIMLOCK00002");
    stage.dep.expire_cursors();
    let before = stage.escrow().server_tokens().all().await.unwrap()[0].whole_at;
    stage.read_list().await;
    stage
        .until("the list to be read whole", async || {
            stage.escrow().server_tokens().all().await.unwrap()[0].whole_at != before
        })
        .await;
    assert_eq!(suspect("SIMLOCK00002").await.as_deref(), Some("unlisted"));
}

#[tokio::test]
async fn t27_the_business_api_tells_the_product_type_of_a_device_that_never_enrolled() {
    let stage = Stage::new().await;
    let token = stage.server_token().await;
    let device = stage.device(SERIAL, Kind::IphoneDualSim);
    stage.dep.assign(&token, device.dep_device());
    stage.business.add_device(device.org_device());
    stage.listed(SERIAL).await;
    let known = stage.view(SERIAL).await;
    assert_eq!(known.summary.coverage, CoverageState::Exempt);
    assert!(known.identity.is_none());
    assert!(known.cellular.imei.is_some() && known.cellular.imei2.is_some());
    stage.account().await;
    stage
        .until("the product type to be told", async || {
            stage.view(SERIAL).await.identity.is_some()
        })
        .await;
    // A lock of it, and an unlock by what Apple's lists told alone (R18: swapped where the slots were not named).
    assert_eq!(stage.lock_to_its_end(SERIAL).await.state, StateName::Locked);
    assert_eq!(unlocked(&stage, SERIAL).await.0, StateName::Unlocked);
}

#[tokio::test]
async fn a_list_that_cannot_be_read_now_is_read_later() {
    let stage = Stage::new().await;
    let token = stage.dep.issue_token("A server");
    stage.known_to_apple(SERIAL);
    stage.dep.assign(&token, DepDevice::new(SERIAL, "iPad"));
    stage
        .dep
        .push_fault(Fault::status(503).on("/server/devices").times(2));
    stage.keep_token(&token).await;
    let step = Duration::from_secs(5);
    stage
        .until_in_steps("the list to be read", step, async || {
            stage.find(SERIAL).await.is_some()
        })
        .await;
    assert_eq!(stage.dep.faults_waiting(), 0);
}

#[tokio::test]
async fn a_server_that_takes_no_cursor_at_all_is_not_asked_for_ever() {
    let stage = Stage::new().await;
    let refuses = Fault::status(400)
        .body("EXPIRED_CURSOR")
        .on("/server/devices")
        .times(1_000);
    stage.dep.push_fault(refuses);
    stage.server_token().await;
    let found = async || {
        stage
            .escrow()
            .server_tokens()
            .all()
            .await
            .unwrap()
            .remove(0)
    };
    stage
        .until("the list to be put off", async || {
            found().await.list_retry_at.is_some()
        })
        .await;
    let calls = stage.dep.journal().all().into_iter();
    let asked = calls.filter(|call| call.path == "/server/devices").count();
    assert!(asked <= 2, "{asked}");
}

#[tokio::test]
async fn no_answer_keeps_a_list_waiting_for_longer_than_a_day() {
    let stage = Stage::new().await;
    let slow = Fault::status(503)
        .retry_after("99999999999999999999")
        .on("/server/devices");
    stage.dep.push_fault(slow);
    stage.server_token().await;
    let found = async || {
        stage
            .escrow()
            .server_tokens()
            .all()
            .await
            .unwrap()
            .remove(0)
    };
    stage
        .until("the list to be put off", async || {
            found().await.list_retry_at.is_some()
        })
        .await;
    let until = found().await.list_retry_at.unwrap();
    assert!(until <= stage.now().plus(DAY), "{until:?}");
}
