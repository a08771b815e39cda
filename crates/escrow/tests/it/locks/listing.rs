//! Apple's lists: what they make known, what their silence means, and locks that follow from them (R20, T28).

use escrow::coverage::CoverageState;
use escrow::duties::{Duty, LEASE};
use escrow::listing::{AUTOMATIC_LOCKS_AN_HOUR, Changed, Line, Listed, OrgDevice, Page, Reading};

use super::*;

fn line(name: &str) -> Line {
    let said = Listed {
        model: Some("iPad".to_owned()),
        imei: vec![
            "358823340832230".parse().unwrap(),
            "358823340832248".parse().unwrap(),
        ],
        meid: vec!["35882334083223".parse().unwrap()],
        ..Listed::default()
    };
    Line::Names(serial(name), Box::new(said))
}

fn page(lines: Vec<Line>, more: bool) -> Page {
    Page {
        lines,
        cursor: Some("cursor".to_owned()),
        more,
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("LISTED{n:06}")).collect()
}

impl Desk {
    async fn take(&self, reading: Reading, page: Page) -> Changed {
        self.clock.advance(Duration::from_secs(1));
        let listing = self.escrow.listing();
        listing
            .page(&self.token, reading, page)
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) async fn listed_whole(&self, names: &[&str]) -> Changed {
        self.escrow
            .listing()
            .begin_whole(&self.token)
            .await
            .unwrap();
        let lines = names.iter().map(|name| line(name)).collect();
        self.take(Reading::Whole, page(lines, false)).await
    }

    pub(super) async fn reads_changes(&self) -> bool {
        let (due, _) = self.escrow.listing().due(Duration::ZERO).await.unwrap();
        due[0].reading == Reading::Changes
    }

    async fn lock_on_listing(&self, on: bool) {
        let permit = self.permit("policy").await;
        let organisations = self.escrow.organisations();
        organisations
            .set_lock_on_listing(&permit, on)
            .await
            .unwrap();
    }

    async fn locks_asked_for(&self) -> i64 {
        let queue = self.escrow.operations().queue(Kind::Lock).await;
        queue.unwrap().live
    }
}

#[tokio::test]
async fn t27_a_list_makes_devices_known_that_never_enrolled_and_fills_gaps_only() {
    let desk = Desk::new().await;
    let changed = desk.listed_whole(&["LISTED000001", SERIAL]).await;
    assert_eq!((changed.new, changed.gone), (2, 0));
    let device = desk.device("LISTED000001").await;
    assert_eq!(device.summary.coverage, CoverageState::Exempt);
    assert_eq!(
        device.summary.coverage_reason.as_deref(),
        Some("never_enrolled")
    );
    assert_eq!(
        device.cellular.imei.as_ref().map(|i| i.as_str()),
        Some("358823340832230")
    );
    assert_eq!(
        device.cellular.imei2.as_ref().map(|i| i.as_str()),
        Some("358823340832248")
    );
    assert_eq!(device.listings.len(), 1);
    assert!(
        device.identity.is_none(),
        "a list of the enrolment service names no product type"
    );
    let known = desk.device(SERIAL).await;
    let product = known.summary.product_type.map(|p| p.to_string());
    assert_eq!(product.as_deref(), Some("iPad4,1"));

    desk.account().await;
    let account = desk.escrow.business_apis().all().await.unwrap().remove(0);
    let org_device = |name: &str| OrgDevice {
        serial: serial(name),
        product_type: Some("iPhone11,8".parse().unwrap()),
        model: Some("iPhone XR".to_owned()),
        imei: Vec::new(),
        meid: Vec::new(),
    };
    let devices = vec![
        org_device("LISTED000001"),
        org_device(SERIAL),
        org_device("ONLYTHERE001"),
    ];
    let listing = desk.escrow.listing();
    listing.fill(&account, devices, None).await.unwrap();
    for (name, product) in [
        ("LISTED000001", "iPhone11,8"),
        (SERIAL, "iPad4,1"),
        ("ONLYTHERE001", "iPhone11,8"),
    ] {
        let identity = desk
            .device(name)
            .await
            .identity
            .expect("it can be unlocked");
        assert_eq!(identity.product_type.as_str(), product, "{name}");
    }
}

#[tokio::test]
async fn t28_a_device_that_is_no_longer_listed_keeps_its_codes_which_become_doubtful() {
    let desk = Desk::new().await;
    desk.add_code(CODE_A, CodeKind::Device).await;
    desk.listed_whole(&[SERIAL, "LISTED000001"]).await;
    let gone = page(vec![Line::NamesNoMore(serial(SERIAL))], false);
    assert_eq!(desk.take(Reading::Changes, gone).await.gone, 1);
    let device = desk.device(SERIAL).await;
    assert_eq!(device.summary.suspect.as_deref(), Some("unlisted"));
    assert_eq!(device.codes.len(), 1);
    assert!(device.listings[0].gone_at.is_some());
    assert!(
        audit_texts(&desk)
            .await
            .iter()
            .any(|row| row.contains("device.unlisted"))
    );
    // It comes back.
    let back = page(vec![line(SERIAL)], false);
    assert_eq!(desk.take(Reading::Changes, back).await.new, 1);
    assert_eq!(desk.device(SERIAL).await.summary.suspect, None);
    // A list read whole that leaves it out says the same, at its end and not before.
    desk.escrow
        .listing()
        .begin_whole(&desk.token)
        .await
        .unwrap();
    let first = desk
        .take(Reading::Whole, page(vec![line("LISTED000001")], true))
        .await;
    assert_eq!(first.gone, 0);
    let last = desk.take(Reading::Whole, page(Vec::new(), false)).await;
    assert_eq!(last.gone, 1);
    assert_eq!(
        desk.device(SERIAL).await.summary.suspect.as_deref(),
        Some("unlisted")
    );
}

#[tokio::test]
async fn t28_a_device_that_moved_to_another_server_of_ours_is_still_listed() {
    let desk = Desk::new().await;
    desk.listed_whole(&[SERIAL]).await;
    let other = put_token(&desk, "other").await;
    let listing = desk.escrow.listing();
    listing.begin_whole(&other).await.unwrap();
    let there = page(vec![line(SERIAL)], false);
    let changed = listing
        .page(&other, Reading::Whole, there)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed.new, 0);
    let gone = page(vec![Line::NamesNoMore(serial(SERIAL))], false);
    assert_eq!(desk.take(Reading::Changes, gone).await.gone, 0);
    assert_eq!(desk.device(SERIAL).await.summary.suspect, None);
    // A lock of it goes out with the token of the server that lists it.
    let mut wish = desk.wish(SERIAL);
    wish.override_reason = None;
    let asked = desk.ask(wish).await;
    assert!(matches!(asked, Enqueued::New(_)), "{asked:?}");
    assert_eq!(desk.begin().await.via.server_token, other.id);
}

#[tokio::test]
async fn r20_a_first_whole_list_of_ten_thousand_locks_nothing() {
    let desk = Desk::new().await;
    desk.lock_on_listing(true).await;
    desk.escrow
        .listing()
        .begin_whole(&desk.token)
        .await
        .unwrap();
    let all = names(10_000);
    for (index, part) in all.chunks(1_000).enumerate() {
        let lines = part.iter().map(|name| line(name)).collect();
        let changed = desk.take(Reading::Whole, page(lines, index < 9)).await;
        assert_eq!(
            (changed.new, changed.locks, changed.paused),
            (1_000, 0, false)
        );
    }
    assert_eq!(desk.locks_asked_for().await, 0);
    // A restarted one neither, though it names devices that were gone.
    desk.escrow
        .listing()
        .begin_whole(&desk.token)
        .await
        .unwrap();
    let lines = ["LISTED000001", "LISTEDANEW01"]
        .iter()
        .map(|name| line(name))
        .collect();
    let changed = desk.take(Reading::Whole, page(lines, false)).await;
    assert_eq!((changed.new, changed.gone, changed.locks), (1, 9_999, 0));
    assert_eq!(desk.locks_asked_for().await, 0);
    assert!(desk.reads_changes().await);
}

#[tokio::test]
async fn r20_newly_listed_devices_are_locked_where_the_policy_says_so_and_twenty_an_hour() {
    let desk = Desk::new().await;
    desk.listed_whole(&[]).await;
    let new = |from: usize, to: usize| {
        page(
            names(to)[from..].iter().map(|name| line(name)).collect(),
            false,
        )
    };
    assert_eq!(
        desk.take(Reading::Changes, new(0, 5)).await.locks,
        0,
        "it is off by default"
    );
    desk.lock_on_listing(true).await;
    assert_eq!(
        desk.take(Reading::Changes, new(0, 5)).await.locks,
        0,
        "they are not new any more"
    );
    let changed = desk.take(Reading::Changes, new(5, 15)).await;
    assert_eq!((changed.locks, changed.paused), (10, false));
    let changed = desk.take(Reading::Changes, new(15, 45)).await;
    assert_eq!((changed.locks, changed.paused), (10, true));
    assert_eq!(desk.locks_asked_for().await, AUTOMATIC_LOCKS_AN_HOUR);
    // It waits for a person, however long.
    desk.clock.advance(DAY);
    assert_eq!(desk.take(Reading::Changes, new(45, 46)).await.locks, 0);
    let organisations = desk.escrow.organisations();
    let shown = organisations.list(&desk.actor).await.unwrap().remove(0);
    assert!(shown.lock_on_listing && shown.listing_paused_at.is_some());
    let rows = audit_texts(&desk).await;
    assert!(
        rows.iter()
            .any(|row| row.contains("\"result\":\"paused\"") && row.contains("LISTED000044"))
    );
    desk.lock_on_listing(true).await;
    assert_eq!(desk.take(Reading::Changes, new(46, 47)).await.locks, 1);
}

#[tokio::test]
async fn a_cursor_survives_a_restart_and_a_list_that_failed_is_read_again_at_its_time() {
    let mut desk = Desk::new().await;
    desk.escrow
        .listing()
        .begin_whole(&desk.token)
        .await
        .unwrap();
    desk.take(Reading::Whole, page(vec![line("LISTED000001")], true))
        .await;
    desk.vault.reopen(|_| {}).await;
    let every = Duration::from_secs(60 * 60);
    let (due, _) = desk.escrow.listing().due(every).await.unwrap();
    assert_eq!(
        (due[0].reading, due[0].cursor.as_deref()),
        (Reading::Whole, Some("cursor"))
    );
    desk.take(Reading::Whole, page(Vec::new(), false)).await;
    let (due, next) = desk.escrow.listing().due(every).await.unwrap();
    assert!(due.is_empty());
    assert_eq!(next, Some(desk.now().plus(every)));
    let later = desk.now().plus(Duration::from_secs(5));
    desk.escrow
        .listing()
        .put_off(&desk.token, later)
        .await
        .unwrap();
    let (_, next) = desk.escrow.listing().due(every).await.unwrap();
    assert_eq!(next, Some(later));
}

#[tokio::test]
async fn t28_that_the_organisation_still_has_a_device_does_not_bring_it_back_to_our_server() {
    let desk = Desk::new().await;
    desk.account().await;
    desk.listed_whole(&[SERIAL]).await;
    let gone = page(vec![Line::NamesNoMore(serial(SERIAL))], false);
    desk.take(Reading::Changes, gone).await;
    let account = desk.escrow.business_apis().all().await.unwrap().remove(0);
    let device = OrgDevice {
        serial: serial(SERIAL),
        product_type: None,
        model: None,
        imei: Vec::new(),
        meid: Vec::new(),
    };
    desk.escrow
        .listing()
        .fill(&account, vec![device], None)
        .await
        .unwrap();
    assert_eq!(
        desk.device(SERIAL).await.summary.suspect.as_deref(),
        Some("unlisted")
    );
}

#[tokio::test]
async fn r20_what_a_process_read_that_lost_the_duty_is_not_taken_in() {
    let desk = Desk::new().await;
    let duties = desk.escrow.duties();
    let hold = async |process| duties.hold(Duty::Lists, process).await.unwrap();
    let first = hold("one").await.expect("nobody had it");
    assert!(hold("two").await.is_none());
    desk.clock.advance(LEASE - Duration::from_secs(1));
    assert!(hold("two").await.is_none());
    assert!(hold("one").await.is_some(), "its holder goes on with it");
    desk.clock.advance(LEASE + Duration::from_secs(1));
    let second = hold("two").await.expect("the first one was silent");
    let listing = || desk.escrow.listing();
    listing().begin_whole(&desk.token).await.unwrap();
    let read = || page(vec![line("LISTED000001")], false);
    let stale = listing().under(first);
    let taken = stale.page(&desk.token, Reading::Whole, read()).await;
    assert!(taken.unwrap().is_none());
    assert!(desk.find("LISTED000001").await.is_none());
    let taken = listing()
        .under(second)
        .page(&desk.token, Reading::Whole, read())
        .await;
    assert!(taken.unwrap().is_some());
    assert!(desk.find("LISTED000001").await.is_some());
}
