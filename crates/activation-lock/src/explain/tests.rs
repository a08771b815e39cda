//! Everything that can be said, read for its form.

use super::*;
use crate::codes::CodeId;
use crate::time::Timestamp;

/// Everything this file can say.
fn all() -> Vec<Explanation> {
    let mut all = vec![
        attempt(&AttemptResult::InFlight, None),
        attempt(&AttemptResult::Lost, None),
    ];
    for &this in Outcome::ALL {
        for status in [None, Some(418), Some(429)] {
            all.push(attempt(
                &AttemptResult::Ended {
                    outcome: this,
                    retry_after: None,
                },
                status,
            ));
        }
    }
    all.extend([queued(), running()]);
    all.extend(WaitReason::ALL.iter().map(|&why| waiting(why)));
    all.extend([
        end(&End::Unlocked {
            by: CodeId("a".into()),
        }),
        end(&End::ProbablyUnlocked),
        end(&End::NotLocked),
        end(&End::Cancelled {
            by: "An administrator".into(),
        }),
    ]);
    all.extend(
        RejectedWhy::ALL
            .iter()
            .map(|&why| end(&End::Rejected { why })),
    );
    for &why in ReviewReason::ALL {
        all.extend([0, 1, 2].map(|untried| end(&End::NeedsReview { why, untried })));
    }
    all.extend(NotAsked::ALL.iter().map(|&why| not_asked(why)));
    all.extend(Refusal::ALL.iter().map(|&how| refusal(how)));
    all.extend(Nothing::ALL.iter().map(|&why| no_permission(why)));
    all.extend(
        AllowedBeforeEscrow::ALL
            .iter()
            .map(|&gap| allowed_before_escrow(gap)),
    );
    all.extend(MacWarning::ALL.iter().map(|&warning| mac_warning(warning)));
    all.extend(locks());
    let at = Timestamp(0);
    all.extend(
        [
            Window::Unknown,
            Window::Open {
                closes_at: at,
                days_left: 9,
            },
            Window::Closing {
                closes_at: at,
                days_left: 1,
            },
            Window::Closed { closed_at: at },
        ]
        .iter()
        .filter_map(window),
    );
    all
}

/// Everything that is said of locks and of Apple's status.
fn locks() -> Vec<Explanation> {
    use crate::codes::LockStatus;
    use crate::lock::{
        CallResult, End, Evidence, LockOutcome, OurLock, RefusedWhy, ReviewReason, Standing,
        WaitReason,
    };
    let mut all = vec![
        lock::call(CallResult::InFlight, None, None),
        lock::call(CallResult::Lost, None, None),
    ];
    for &outcome in LockOutcome::ALL {
        let ended = CallResult::Ended {
            outcome,
            retry_after: None,
        };
        for (status, said) in [(None, None), (Some(418), None), (Some(200), Some("WORD"))] {
            all.push(lock::call(ended, status, said));
        }
    }
    all.extend([lock::queued(), lock::running()]);
    all.extend(WaitReason::ALL.iter().map(|&why| lock::waiting(why)));
    all.push(lock::end(&End::Locked));
    for &state in OurLock::ALL {
        all.push(lock::end(&End::AlreadyLocked { ours: state }));
        all.push(lock::standing(&Standing {
            state,
            evidence: Evidence::Nothing,
            at: None,
            live: Vec::new(),
        }));
    }
    all.extend(
        RefusedWhy::ALL
            .iter()
            .map(|&why| lock::end(&End::Refused { why })),
    );
    all.extend(
        ReviewReason::ALL
            .iter()
            .map(|&why| lock::end(&End::NeedsReview { why })),
    );
    all.push(lock::end(&End::Cancelled {
        by: "An administrator".into(),
    }));
    all.extend(lock::strands());
    all.extend(
        [
            ProductFamily::Mac,
            ProductFamily::Vision,
            ProductFamily::Mobile,
        ]
        .into_iter()
        .filter_map(|family| lock::lock_doubt(Some(family))),
    );
    for said in [
        Some(LockStatus::None),
        Some(LockStatus::User),
        Some(LockStatus::Mdm),
        None,
    ] {
        all.push(lock::status(said));
    }
    all
}

#[test]
fn everything_is_said_in_whole_sentences() {
    let all = all();
    assert_eq!(
        all.len() - locks().len(),
        2 + 7 * 3 + 2 + 4 + 4 + 3 + 11 * 3 + 6 + 2 + 9 + 2 + 2 + 4
    );
    for said in &all {
        for part in [&said.happened, &said.means, &said.to_do] {
            assert!(
                part.starts_with(|first: char| first.is_uppercase()),
                "{part}"
            );
            assert!(part.ends_with('.'), "{part}");
            assert!(!part.contains("  ") && !part.contains(".."), "{part}");
        }
    }
}

#[test]
fn no_word_of_the_trade_goes_unexplained() {
    let jargon = [
        "HTTP",
        "TLS",
        "epoch",
        "candidate",
        "escrow",
        "DEP",
        "payload",
        "enrollment",
        "UUID",
        "MDM",
        " lease",
    ];
    for said in all() {
        for part in [&said.happened, &said.means, &said.to_do] {
            let words: Vec<&str> = part.split(|c: char| !c.is_alphanumeric()).collect();
            for word in jargon {
                assert!(!words.contains(&word), "{word}: {part}");
            }
        }
    }
}

#[test]
fn what_apple_does_not_document_is_called_unverified() {
    let ended = |this, status| outcome(this, status).means;
    for means in [
        ended(Outcome::Refused, Some(404)),
        ended(Outcome::Credential, Some(401)),
        ended(Outcome::Credential, None),
        ended(Outcome::Unavailable, Some(429)),
        ended(Outcome::Unexpected, Some(302)),
        end(&End::ProbablyUnlocked).means,
        rejected(RejectedWhy::CannotTell).means,
        end(&End::NotLocked).means,
        review(ReviewReason::Cap, 1).means,
        review(ReviewReason::PossiblyDone, 0).means,
    ] {
        assert!(means.contains("unverified"), "{means}");
    }
    for means in [
        ended(Outcome::Unlocked, Some(200)),
        ended(Outcome::Unavailable, None),
    ] {
        assert!(!means.contains("unverified"), "{means}");
    }
}

#[test]
fn t36_how_a_code_is_typed_depends_on_the_device() {
    let mac = how_to_type(Some(ProductFamily::Mac));
    assert!(mac.contains("Recovery") && !mac.contains("password"));
    let phone = how_to_type(Some(ProductFamily::Mobile));
    assert!(phone.contains("password") && !phone.contains("Recovery"));
    let unknown = how_to_type(None);
    assert!(unknown.contains("password") && unknown.contains("Recovery"));
}

#[test]
fn r15_only_an_accepted_code_is_called_unlocked() {
    let locked: Vec<_> = locks()
        .into_iter()
        .filter(|said| said.means.contains("Activation Lock is on"))
        .collect();
    assert!(
        locked
            .iter()
            .all(|said| said.happened.starts_with("Apple locked"))
    );
    let claims = "Activation Lock is off";
    for said in all() {
        let accepted = said.happened.starts_with("Apple accepted");
        assert_eq!(said.means.contains(claims), accepted, "{}", said.means);
    }
}
