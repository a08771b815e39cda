//! In which order codes are tried (R12, R18), and what of a code may be sent (R3).

use activation_lock::codes::{
    Candidate, CodeId, CodeKind, CodeText, Credential, Form, LockStatus, Plan, Retention, Standing,
    TextShape, Try, forms, order, retain,
};
use activation_lock::device::DeviceIdentity;
use activation_lock::time::Timestamp;
use proptest::prelude::*;

/// A server code, the current one, whose lock may be on.
const LIVE: &str = "live";

fn candidate(id: &str, kind: CodeKind, current: bool, seen: i64) -> Candidate {
    Candidate {
        code: CodeId(id.to_owned()),
        kind,
        current,
        possibly_live: false,
        forms: vec![Form::Reported],
        parses: true,
        last_seen: Timestamp(seen),
        topic: None,
    }
}

fn live() -> Candidate {
    Candidate {
        possibly_live: true,
        ..candidate(LIVE, CodeKind::Server, true, 0)
    }
}

/// The current device code, one of its history, a server code of old, one of unknown kind.
fn some() -> Vec<Candidate> {
    vec![
        candidate("old-device", CodeKind::Device, false, 3),
        candidate("device", CodeKind::Device, true, 5),
        candidate("server", CodeKind::Server, true, 4),
        candidate("old-server", CodeKind::Server, false, 2),
    ]
}

fn identity() -> DeviceIdentity {
    DeviceIdentity {
        serial: "SERIAL1".parse().unwrap(),
        product_type: "iPhone14,5".parse().unwrap(),
        imei: "358823340832230".parse().ok(),
        imei2: "358823340832248".parse().ok(),
        meid: None,
    }
}

fn credential(topic: &str) -> Credential {
    Credential {
        id: format!("certificate of {topic}"),
        topic: topic.to_owned(),
    }
}

struct Asked {
    candidates: Vec<Candidate>,
    status: Option<LockStatus>,
    without_slots: bool,
    topics: Vec<&'static str>,
    refused: Vec<Try>,
}

impl Asked {
    fn of(candidates: Vec<Candidate>) -> Self {
        Self {
            candidates,
            status: None,
            without_slots: false,
            topics: vec!["topic"],
            refused: Vec::new(),
        }
    }

    fn tries(&self) -> Vec<Try> {
        let credentials: Vec<Credential> = self.topics.iter().copied().map(credential).collect();
        order(&Plan {
            candidates: &self.candidates,
            identity: &identity(),
            imeis_without_slots: self.without_slots,
            credentials: &credentials,
            status: self.status,
            refused_before: &self.refused,
        })
    }

    fn codes(&self) -> Vec<String> {
        self.tries().into_iter().map(|one| one.code.0).collect()
    }
}

#[test]
fn r12_the_device_code_is_first_and_history_last_newest_first() {
    let codes = Asked::of(some()).codes();
    assert_eq!(codes, ["device", "server", "old-device", "old-server"]);
}

#[test]
fn r4_a_server_code_that_may_be_live_is_first_and_outside_the_caps_for_ever() {
    let mut candidates = some();
    candidates.push(live());
    let tries = Asked::of(candidates).tries();
    assert_eq!(tries[0].code.0, LIVE);
    assert!(tries[0].uncapped);
    assert!(tries[1..].iter().all(|one| !one.uncapped));
    // However old it is, and also when a newer one of its kind is current.
    let mut candidates = some();
    candidates.push(Candidate {
        current: false,
        last_seen: Timestamp(i64::MIN),
        ..live()
    });
    let tries = Asked::of(candidates).tries();
    let at = tries.iter().position(|one| one.code.0 == LIVE).unwrap();
    assert!(at < 2 && tries[at].uncapped);
}

#[test]
fn r12_apples_own_status_decides_whose_codes_are_first() {
    let mut asked = Asked::of(some());
    asked.status = Some(LockStatus::Mdm);
    assert_eq!(
        asked.codes(),
        ["server", "old-server", "device", "old-device"]
    );
    asked.status = Some(LockStatus::User);
    assert_eq!(
        asked.codes(),
        ["device", "old-device", "server", "old-server"]
    );
    asked.candidates.push(live());
    assert_eq!(asked.codes()[0], "device", "Apple knows better than we do");
}

#[test]
fn r12_texts_that_do_not_parse_come_last_whatever_their_kind() {
    let mut candidates = some();
    candidates.push(Candidate {
        parses: false,
        forms: vec![Form::Kept],
        ..candidate("junk", CodeKind::Device, true, 9)
    });
    assert_eq!(Asked::of(candidates).codes().last().unwrap(), "junk");
}

#[test]
fn r12_what_was_refused_before_comes_after_what_was_never_tried() {
    let mut asked = Asked::of(some());
    asked.refused = asked.tries()[..2].to_vec();
    assert_eq!(
        asked.codes(),
        ["old-device", "old-server", "device", "server"]
    );
    // A renewed certificate of the same topic is the same customer to Apple.
    for refused in &mut asked.refused {
        refused.credential.id = "the one before it was renewed".to_owned();
    }
    assert_eq!(asked.codes()[0], "old-device");
}

#[test]
fn r3_every_code_is_tried_in_its_first_writing_before_any_in_its_second() {
    let mut candidates = some();
    candidates[1].forms = vec![Form::Canonical, Form::Kept];
    let tries = Asked::of(candidates).tries();
    let writings: Vec<_> = tries
        .iter()
        .map(|one| (one.code.0.as_str(), one.form))
        .collect();
    assert_eq!(writings[0], ("device", Form::Canonical));
    assert_eq!(writings[4], ("device", Form::Kept));
    assert_eq!(writings.len(), 5);
}

#[test]
fn r3_what_a_device_sent_goes_out_as_it_came() {
    let shapes = [TextShape::Canonical, TextShape::Lenient, TextShape::Opaque];
    for shape in shapes {
        assert_eq!(forms(shape, true, true), [Form::Reported]);
        assert_eq!(forms(shape, true, false)[0], Form::Reported);
    }
    assert_eq!(forms(TextShape::Canonical, false, false), [Form::Canonical]);
    assert_eq!(
        forms(TextShape::Lenient, false, false),
        [Form::Canonical, Form::Kept]
    );
    assert_eq!(forms(TextShape::Opaque, false, false), [Form::Kept]);
}

#[test]
fn r18_imeis_from_a_list_are_swapped_once_after_everything_else() {
    let mut asked = Asked::of(some());
    asked.without_slots = true;
    let tries = asked.tries();
    assert_eq!(tries.len(), 5);
    let last = tries.last().unwrap();
    assert!(last.swapped && last.code.0 == "device");
    assert_eq!(last.identity.imei, identity().imei2);
    assert!(tries[..4].iter().all(|one| !one.swapped));
}

#[test]
fn r18_the_topic_under_which_a_code_was_had_is_used_first() {
    let mut candidates = some();
    candidates[1].topic = Some("second".to_owned());
    let mut asked = Asked::of(candidates);
    asked.topics = vec!["first", "second"];
    let tries = asked.tries();
    let used: Vec<_> = tries
        .iter()
        .map(|one| (one.code.0.as_str(), one.credential.topic.as_str()))
        .collect();
    assert_eq!(used[..2], [("device", "second"), ("server", "first")]);
    assert!(used.iter().position(|one| *one == ("device", "first")) >= Some(4));
}

#[test]
fn r1_only_the_answer_to_the_newest_ask_moves_the_current_code() {
    let (a, b) = (CodeId("a".to_owned()), CodeId("b".to_owned()));
    for standing in Standing::ALL.iter().copied() {
        let newest = standing == Standing::Newest;
        let another = retain(Some(&a), Some(&b), standing);
        let expected = Retention {
            existing: Some(b.clone()),
            current: newest,
            replaces: newest,
            opens_guard: newest,
            ask_again: matches!(standing, Standing::Late | Standing::Unsolicited),
        };
        assert_eq!(another, expected, "{standing}");
        // A code that nobody knew, in an answer to a command that had its answer, is worth a question.
        let asks = expected.ask_again || standing == Standing::Repeated;
        assert_eq!(
            retain(Some(&a), None, standing).ask_again,
            asks,
            "{standing}"
        );
        let same = retain(Some(&a), Some(&a), standing);
        assert!(same.current && !same.replaces, "{standing}");
        assert_eq!(retain(None, None, standing).current, newest, "{standing}");
    }
}

fn kinds() -> impl Strategy<Value = CodeKind> {
    prop::sample::select(CodeKind::ALL.to_vec())
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (kinds(), any::<[bool; 4]>(), 0..5_i64);
    prop::collection::vec(one, 0..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(
                |(number, (kind, [current, live, parses, two], seen))| Candidate {
                    possibly_live: live && kind == CodeKind::Server,
                    parses,
                    forms: match (parses, two) {
                        (true, true) => vec![Form::Canonical, Form::Kept],
                        (true, false) => vec![Form::Reported],
                        (false, _) => vec![Form::Kept],
                    },
                    ..candidate(&number.to_string(), kind, current, seen)
                },
            )
            .collect()
    })
}

proptest! {
    #[test]
    fn r12_every_writing_of_every_code_is_tried_once_whatever_is_known(
        candidates in candidates(),
        status in prop::sample::select(vec![None, Some(LockStatus::Mdm), Some(LockStatus::User), Some(LockStatus::None)]),
        without_slots in any::<bool>(),
        refused in any::<usize>(),
    ) {
        let mut asked = Asked::of(candidates);
        asked.status = status;
        asked.without_slots = without_slots;
        let all = asked.tries();
        for candidate in &asked.candidates {
            for form in &candidate.forms {
                let of_it = all.iter().filter(|one| one.code == candidate.code && one.form == *form && !one.swapped);
                prop_assert_eq!(of_it.count(), 1);
            }
        }
        // What was refused before changes the order and loses nothing; what was never tried is first.
        asked.refused = all[..refused % (all.len() + 1)].to_vec();
        let again = asked.tries();
        prop_assert_eq!(again.len(), all.len());
        let known = |one: &Try| asked.refused.iter().any(|earlier| earlier.is_same(one));
        let first_known = again.iter().position(known).unwrap_or(again.len());
        prop_assert!(again[first_known..].iter().all(known));
        // Among what was never tried, texts that do not parse come last.
        let fresh = &again[..first_known];
        let first_junk = fresh.iter().position(|one| !one.parses).unwrap_or(fresh.len());
        prop_assert!(fresh[first_junk..].iter().all(|one| !one.parses || one.swapped));
    }

    #[test]
    fn r3_the_same_code_in_another_writing_is_the_same_code(raw in any::<[u8; 16]>(), small in any::<bool>(), bare in any::<bool>()) {
        let text = activation_lock::bypass_code::BypassCode::from_raw(raw).to_text();
        let mut typed = text.to_string();
        if small { typed = typed.to_lowercase(); }
        if bare { typed.retain(|c| c != '-'); }
        let (canonical, typed) = (CodeText::new(text.to_string()).unwrap(), CodeText::new(typed).unwrap());
        prop_assert!(canonical.is_same_code(&typed));
        prop_assert!(*typed.in_form(Form::Canonical) == *text);
        let other = CodeText::new(format!("{}X", text.as_str())).unwrap();
        prop_assert!(!canonical.is_same_code(&other));
    }
}
