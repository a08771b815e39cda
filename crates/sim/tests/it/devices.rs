//! What devices answer, and what happens to them.

use plist::{Dictionary, Value};
use sim::{
    Apple, Code, Device, DeviceSpec, Kind, LockKind, NanoMdm, SlotOrder, Udid,
    devices::{ErrorItem, FindMy, SettingsForm},
    fingerprint,
};

use crate::support::{Receiver, enqueue, trio};

struct Lab {
    apple: Apple,
    mdm: NanoMdm,
    receiver: Receiver,
    device: Device,
}

impl Lab {
    async fn with(spec: DeviceSpec) -> Self {
        let (apple, mdm, receiver) = trio().await;
        let device = Device::new(spec, &mdm, &apple);
        device.enrol();
        Self {
            apple,
            mdm,
            receiver,
            device,
        }
    }

    async fn of(kind: Kind) -> Self {
        Self::with(DeviceSpec::new("SIMDEVICE001", kind, 7)).await
    }

    /// Asks, lets the device answer, and gives the answer.
    async fn ask(&self, request_type: &str, rest: &str) -> Dictionary {
        let uuid = format!("U-{}", self.mdm.commands().count());
        enqueue(
            &self.mdm,
            &self.device.enrollment_id(),
            &uuid,
            request_type,
            rest,
        )
        .await;
        self.device.poll();
        self.mdm.webhooks_settled().await;
        let payload = self.receiver.all().pop().unwrap().payload();
        assert_eq!(text(&payload, "CommandUUID"), uuid);
        payload
    }

    async fn code(&self) -> Dictionary {
        self.ask("ActivationLockBypassCode", "").await
    }

    async fn allow(&self, allowed: bool) -> Dictionary {
        let rest = format!(
            "<key>Settings</key><array><dict><key>Item</key><string>MDMOptions</string><key>MDMOptions</key><dict>\
             <key>ActivationLockAllowedWhileSupervised</key><{allowed}/></dict></dict></array>"
        );
        self.ask("Settings", &rest).await
    }

    async fn information(&self, queries: &[&str]) -> Dictionary {
        let names: String = queries
            .iter()
            .map(|name| format!("<string>{name}</string>"))
            .collect();
        let payload = self
            .ask(
                "DeviceInformation",
                &format!("<key>Queries</key><array>{names}</array>"),
            )
            .await;
        payload
            .get("QueryResponses")
            .and_then(Value::as_dictionary)
            .unwrap()
            .clone()
    }
}

fn text<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary
        .get(key)
        .and_then(Value::as_string)
        .unwrap_or_default()
}

fn first_error(dictionary: &Dictionary) -> i64 {
    let chain = dictionary
        .get("ErrorChain")
        .and_then(Value::as_array)
        .unwrap();
    chain[0]
        .as_dictionary()
        .unwrap()
        .get("ErrorCode")
        .and_then(Value::as_signed_integer)
        .unwrap()
}

#[tokio::test]
async fn t27_lists_of_the_organisation_name_imeis_in_an_order_that_says_nothing() {
    for order in [SlotOrder::InOrder, SlotOrder::Reversed] {
        let spec = DeviceSpec::new("SIMDEVICE001", Kind::IphoneDualSim, 7).with_slot_order(order);
        let lab = Lab::with(spec).await;
        let known = lab.device.identity();
        let mut slots = vec![known.imei.unwrap(), known.imei2.unwrap()];
        if order == SlotOrder::Reversed {
            slots.reverse();
        }
        let (dep, api) = (lab.device.dep_device(), lab.device.org_device());
        assert_eq!((&dep.imei, &api.imei), (&slots, &slots));
        assert_eq!(
            (dep.meid, api.meid),
            (vec![known.meid.clone().unwrap()], vec![known.meid.unwrap()])
        );
        assert_eq!(dep.model, "iPhone 14 Pro Max", "not the product type");
        assert_eq!(api.product_type, known.product_type);
    }
}

#[tokio::test]
async fn a_supervised_device_tells_its_own_code_in_canonical_form() {
    let lab = Lab::of(Kind::Iphone).await;
    assert!(!lab.device.has_told_code());
    let answer = lab.code().await;
    assert_eq!(text(&answer, "Status"), "Acknowledged");
    assert_eq!(text(&answer, "UDID"), lab.device.enrollment_id());
    assert!(Code::parse(text(&answer, "ActivationLockBypassCode")).is_some());
    assert!(text(&answer, "ActivationLockBypassCode") == lab.device.code_text());
    assert!(lab.device.has_told_code());
}

#[tokio::test]
async fn t20_empty_missing_and_failed_answers() {
    let lab = Lab::of(Kind::Mac).await;
    lab.device.empty_code(1);
    let empty = lab.code().await;
    assert!(
        empty.contains_key("ActivationLockBypassCode")
            && text(&empty, "ActivationLockBypassCode").is_empty()
    );
    lab.device.missing_code_key(1);
    let missing = lab.code().await;
    assert!(
        !missing.contains_key("ActivationLockBypassCode")
            && text(&missing, "Status") == "Acknowledged"
    );
    for item in [
        ErrorItem::invalid_request_type(),
        ErrorItem::not_supervised(),
        ErrorItem::lost_mode(),
    ] {
        lab.device
            .fail_next(Some("ActivationLockBypassCode"), vec![item.clone()]);
        let failed = lab.code().await;
        assert_eq!(
            (text(&failed, "Status"), first_error(&failed)),
            ("Error", item.code)
        );
    }
    assert!(!lab.device.has_told_code());
    assert_eq!(text(&lab.code().await, "Status"), "Acknowledged");
}

#[tokio::test]
async fn t25_kinds_without_a_code_refuse_as_such_devices_do() {
    for (kind, number) in [
        (Kind::UnsupervisedIphone, 29000),
        (Kind::SharedIpad, 12021),
        (Kind::AppleTv, 12021),
        (Kind::UserEnrollment, 12021),
        (Kind::UnmanageableMac, 12021),
    ] {
        let lab = Lab::of(kind).await;
        assert_eq!(first_error(&lab.code().await), number, "{kind:?}");
    }
}

#[tokio::test]
async fn t27_information_is_what_was_asked_for_and_what_the_system_still_tells() {
    let asked = [
        "SerialNumber",
        "ProductName",
        "IsSupervised",
        "IMEI",
        "MEID",
        "ServiceSubscriptions",
        "MDMOptions",
    ];
    let new = Lab::of(Kind::Iphone).await;
    let told = new.information(&asked).await;
    assert_eq!(text(&told, "SerialNumber"), "SIMDEVICE001");
    assert_eq!(text(&told, "ProductName"), "iPhone12,8");
    assert!(
        !told.contains_key("IMEI") && !told.contains_key("MEID"),
        "iOS 26 no longer tells them"
    );
    assert!(!told.contains_key("OSVersion"), "not asked for");
    let old = Lab::with(DeviceSpec::new("SIMDEVICE001", Kind::Iphone, 7).with_os_major(18)).await;
    let told = old.information(&asked).await;
    let imei = old.device.identity().imei.unwrap();
    assert_eq!(text(&told, "IMEI").replace(' ', ""), imei);
    assert!(
        text(&told, "IMEI").contains(' '),
        "with spaces, as devices print it"
    );
    assert_eq!(
        text(&new.information(&["OSVersion"]).await, "OSVersion"),
        "26.0"
    );
}

#[tokio::test]
async fn t17_slots_come_by_name_in_any_order() {
    for (order, first, second) in [
        (
            SlotOrder::InOrder,
            "CTSubscriptionSlotOne",
            "CTSubscriptionSlotTwo",
        ),
        (
            SlotOrder::Reversed,
            "CTSubscriptionSlotTwo",
            "CTSubscriptionSlotOne",
        ),
        (SlotOrder::SecondUnnamed, "CTSubscriptionSlotOne", ""),
    ] {
        let spec = DeviceSpec::new("SIMDEVICE001", Kind::IphoneDualSim, 7).with_slot_order(order);
        let lab = Lab::with(spec).await;
        let told = lab.information(&["ServiceSubscriptions"]).await;
        let entries = told
            .get("ServiceSubscriptions")
            .and_then(Value::as_array)
            .unwrap();
        let entry = |index: usize| entries[index].as_dictionary().unwrap();
        assert_eq!(
            (text(entry(0), "Slot"), text(entry(1), "Slot")),
            (first, second)
        );
        let identity = lab.device.identity();
        for index in 0..2 {
            let imei = if text(entry(index), "Slot") == "CTSubscriptionSlotOne" {
                &identity.imei
            } else {
                &identity.imei2
            };
            assert_eq!(Some(text(entry(index), "IMEI").replace(' ', "")), *imei);
        }
        assert_ne!(
            text(entry(0), "MEID"),
            text(entry(1), "MEID"),
            "the second slot's is another"
        );
    }
    let wifi = Lab::of(Kind::IpadWifi).await;
    let told = wifi.information(&["ServiceSubscriptions"]).await;
    assert_eq!(
        told.get("ServiceSubscriptions")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(0)
    );
}

#[tokio::test]
async fn a_user_enrollment_has_neither_serial_nor_udid() {
    let lab = Lab::of(Kind::UserEnrollment).await;
    let told = lab
        .information(&["SerialNumber", "UDID", "ProductName"])
        .await;
    assert!(!told.contains_key("SerialNumber") && !told.contains_key("UDID"));
    let enrolled = lab.receiver.all()[0].clone();
    let event = enrolled.json()["checkin_event"].clone();
    assert_eq!(event["ids"]["type"], "User Enrollment (Device)");
    assert!(event.get("udid").is_none() && event["enrollment_id"].is_string());
    assert!(
        !enrolled.payload().contains_key("SerialNumber")
            && enrolled.payload().contains_key("EnrollmentID")
    );
}

#[tokio::test]
async fn t26_a_mac_says_whether_its_lock_can_be_managed() {
    for (kind, manageable) in [
        (Kind::Mac, Some(true)),
        (Kind::UnmanageableMac, Some(false)),
        (Kind::Iphone, None),
    ] {
        let lab = Lab::of(kind).await;
        let answer = lab.ask("SecurityInfo", "").await;
        let info = answer
            .get("SecurityInfo")
            .and_then(Value::as_dictionary)
            .unwrap();
        let status = info
            .get("ManagementStatus")
            .and_then(Value::as_dictionary)
            .unwrap();
        assert_eq!(
            status
                .get("IsActivationLockManageable")
                .and_then(Value::as_boolean),
            manageable
        );
    }
}

#[tokio::test]
async fn t21_settings_are_acknowledged_even_where_an_item_fails() {
    let lab = Lab::of(Kind::IpadWifi).await;
    let item = |answer: &Dictionary| {
        let settings = answer.get("Settings").unwrap();
        settings
            .as_array()
            .map_or(settings, |items| &items[0])
            .as_dictionary()
            .unwrap()
            .clone()
    };
    lab.device.fail_settings_items(1);
    let failed = lab.allow(true).await;
    assert_eq!(text(&failed, "Status"), "Acknowledged");
    assert_eq!(text(&item(&failed), "Status"), "Error");
    assert!(!lab.device.is_allowed());
    lab.device.settings_form(SettingsForm::Dictionary);
    let done = lab.allow(true).await;
    assert!(done.get("Settings").unwrap().as_dictionary().is_some());
    assert_eq!(text(&item(&done), "Status"), "Acknowledged");
    assert!(lab.device.is_allowed());
    let options = lab.information(&["MDMOptions"]).await;
    let options = options
        .get("MDMOptions")
        .and_then(Value::as_dictionary)
        .unwrap();
    assert_eq!(
        options
            .get("ActivationLockAllowedWhileSupervised")
            .and_then(Value::as_boolean),
        Some(true)
    );
    lab.allow(false).await;
    assert!(!lab.device.is_allowed());
}

#[tokio::test]
async fn find_my_locks_only_with_permission_or_without_supervision() {
    let lab = Lab::of(Kind::Iphone).await;
    assert_eq!(lab.device.find_my_on(), FindMy::NotAllowed);
    assert_eq!(lab.apple.lock_state("SIMDEVICE001"), None);
    lab.allow(true).await;
    assert_eq!(lab.device.find_my_on(), FindMy::Locked);
    assert_eq!(lab.apple.lock_state("SIMDEVICE001"), Some(LockKind::User));
    assert_eq!(lab.device.find_my_on(), FindMy::AlreadyLocked);
    lab.device.user_unlock();
    assert_eq!(lab.apple.lock_state("SIMDEVICE001"), None);
    let free = Lab::of(Kind::UnsupervisedIphone).await;
    assert_eq!(free.device.find_my_on(), FindMy::Locked);
}

#[tokio::test]
async fn t22_an_erase_makes_a_new_code_and_leaves_the_lock_to_the_old_one() {
    let lab = Lab::of(Kind::IphoneDualSim).await;
    lab.allow(true).await;
    let (old_code, old_id) = (lab.device.code_text(), lab.device.enrollment_id());
    lab.device.find_my_on();
    lab.device.erase_and_enrol(Udid::Same);
    assert_eq!(lab.device.enrollment_id(), old_id);
    assert!(lab.device.code_text() != old_code, "a new code");
    assert!(
        !lab.device.is_allowed(),
        "permission does not outlive an erase"
    );
    assert_eq!(
        lab.apple.lock_state("SIMDEVICE001"),
        Some(LockKind::User),
        "the lock does"
    );
    lab.device.erase_and_enrol(Udid::New);
    assert_ne!(lab.device.enrollment_id(), old_id);
    assert_eq!(lab.device.identity().serial, "SIMDEVICE001");
    lab.mdm.webhooks_settled().await;
    let authenticates = lab
        .receiver
        .topics()
        .iter()
        .filter(|topic| *topic == "mdm.Authenticate")
        .count();
    assert_eq!(authenticates, 3, "and no check-out");
}

#[tokio::test]
async fn t23_a_device_may_make_a_new_code_when_find_my_goes_on() {
    let lab =
        Lab::with(DeviceSpec::new("SIMDEVICE001", Kind::Iphone, 7).rotating_on_find_my()).await;
    lab.allow(true).await;
    let escrowed = lab.device.code_text();
    assert_eq!(lab.device.find_my_on(), FindMy::Locked);
    assert!(
        lab.device.code_text() != escrowed,
        "what was escrowed is stale"
    );
    assert!(!lab.device.has_told_code());
}

#[tokio::test]
async fn silent_and_unenrolled_devices_do_nothing() {
    let lab = Lab::of(Kind::Iphone).await;
    enqueue(
        &lab.mdm,
        &lab.device.enrollment_id(),
        "U-1",
        "SecurityInfo",
        "",
    )
    .await;
    lab.device.go_silent();
    assert_eq!(lab.device.poll(), 0);
    lab.device.speak();
    assert_eq!(lab.device.poll(), 1);
    lab.device.check_out();
    assert!(!lab.mdm.is_enabled(&lab.device.enrollment_id()));
    lab.mdm.webhooks_settled().await;
    let before = lab.receiver.topics().len();
    assert_eq!(lab.device.poll(), 0);
    lab.mdm.webhooks_settled().await;
    assert_eq!(lab.receiver.topics().len(), before);
}

#[tokio::test]
async fn user_channels_name_their_device() {
    for (kind, called) in [
        (Kind::Mac, "User"),
        (Kind::SharedIpad, "Shared iPad"),
        (Kind::UserEnrollment, "User Enrollment"),
    ] {
        let lab = Lab::of(kind).await;
        let id = lab.device.user_channel_token_update("anna");
        lab.mdm.webhooks_settled().await;
        let event = lab.receiver.all().pop().unwrap().json()["checkin_event"].clone();
        assert_eq!(event["ids"]["type"], called);
        assert_eq!(event["ids"]["id"], id);
        assert_eq!(event["ids"]["parent_id"], lab.device.enrollment_id());
    }
}

#[tokio::test]
async fn reports_of_the_tests_own_making_reach_the_webhook() {
    let lab = Lab::of(Kind::Iphone).await;
    lab.device.send_code("NEVER-ASKED", "whatever");
    lab.device.report_serial(Some("SIMOTHER0001"));
    lab.mdm.webhooks_settled().await;
    let payload = lab.receiver.all().pop().unwrap().payload();
    assert_eq!(text(&payload, "ActivationLockBypassCode"), "whatever");
    assert_eq!(
        text(&lab.information(&["SerialNumber"]).await, "SerialNumber"),
        "SIMOTHER0001"
    );
}

#[tokio::test]
async fn the_same_seed_makes_the_same_device() {
    let (one, two) = (Lab::of(Kind::Iphone).await, Lab::of(Kind::Iphone).await);
    assert_eq!(one.device.identity(), two.device.identity());
    assert_eq!(one.device.enrollment_id(), two.device.enrollment_id());
    assert_eq!(
        fingerprint(&one.device.code_text()),
        fingerprint(&two.device.code_text())
    );
    one.device.rotate_code();
    two.device.rotate_code();
    assert_eq!(
        fingerprint(&one.device.code_text()),
        fingerprint(&two.device.code_text())
    );
}
