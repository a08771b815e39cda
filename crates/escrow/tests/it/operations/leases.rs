//! Leases, crashes, late answers: who may call, and what becomes of a call nobody waits for any more.

use escrow::operations::LiveElsewhere;

use super::*;

#[tokio::test]
async fn r17_attempt_and_audit_row_are_there_before_the_call_and_name_the_recipient() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let begun = desk.begin(&mut lease).await;
    assert_eq!(begun.guid, "desk@example.org");
    assert_eq!(begun.org_name, "Example School");
    assert!(matches!(&begun.via, Via::Certificate { topic, .. } if topic == TOPIC));
    let view = desk.view(&id).await;
    assert_eq!(view.attempts[0].result, AttemptResult::InFlight);
    assert_eq!(
        view.attempts[0].recipient,
        "deviceservices-external.apple.com"
    );
    assert_eq!(view.attempts[0].identity_source, "device");
    let row = audit_texts(&desk)
        .await
        .into_iter()
        .find(|t| t.contains("unlock.attempt"))
        .expect("a row");
    assert!(
        row.contains("deviceservices-external.apple.com") && row.contains(begun.ticket.attempt())
    );
}

#[tokio::test]
async fn r16_no_call_starts_later_than_the_end_of_the_lease_less_the_time_out() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    desk.clock.advance(Duration::from_secs(50));
    let begun = desk.begin(&mut lease).await;
    assert_eq!(
        begun.latest_start,
        desk.now().plus(Duration::from_secs(30)),
        "the lease was renewed"
    );
    desk.clock.advance(Duration::from_secs(89));
    assert!(
        claim(&desk.escrow, &settings("two")).await.is_none(),
        "nobody else while a call may be under way"
    );
    desk.clock.advance(Duration::from_secs(1));
    assert!(claim(&desk.escrow, &settings("two")).await.is_some());
}

#[tokio::test]
async fn r14_a_stale_lease_cannot_start_or_retry() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let mut stale = desk.claim().await;
    desk.clock.advance(Duration::from_secs(90));
    let lost = desk
        .escrow
        .operations()
        .advance(&mut stale, &settings("one"))
        .await
        .unwrap();
    assert!(matches!(lost, Advance::Lost), "its time is over");
    let mut lease = desk.claim().await;
    let lost = desk
        .escrow
        .operations()
        .advance(&mut stale, &settings("one"))
        .await
        .unwrap();
    assert!(matches!(lost, Advance::Lost), "somebody else has it");
    assert!(!desk.escrow.operations().release(stale, None).await.unwrap());
    assert_eq!(
        desk.state(&id).await,
        StateName::Running,
        "a stale lease gives nothing back"
    );
    desk.begin(&mut lease).await;
}

#[tokio::test]
async fn r14_an_answer_after_the_lease_ran_out_counts_while_nobody_took_over() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let begun = desk.begin(&mut lease).await;
    desk.clock.advance(Duration::from_secs(600));
    assert_eq!(desk.finish(&begun, Outcome::Refused).await, Finished::More);
    let lost = desk
        .escrow
        .operations()
        .advance(&mut lease, &settings("one"))
        .await
        .unwrap();
    assert!(
        matches!(lost, Advance::Lost),
        "but the stale lease makes no further call"
    );
    assert!(same(&desk.work(|_| Outcome::Refused).await, &[CODE_A]));
    assert_eq!(
        desk.state(&id).await,
        StateName::Rejected,
        "both answers were definite"
    );
}

#[tokio::test]
async fn r14_a_call_of_a_dead_process_is_unknown_and_its_code_is_asked_about_again() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    desk.begin(&mut lease).await;
    desk.clock.advance(Duration::from_secs(90));
    assert!(
        desk.work(|_| Outcome::Unlocked).await.is_empty(),
        "it waits before it asks again"
    );
    let view = desk.view(&id).await;
    assert_eq!(view.attempts[0].result, AttemptResult::Lost);
    assert_eq!(view.details.waits_for, Some(WaitReason::NoAnswer));
    desk.clock.advance(Duration::from_secs(3600));
    assert!(same(
        &desk.work(|_| Outcome::Refused).await,
        &[CODE_B, CODE_A]
    ));
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::PossiblyDone)
    );
}

#[tokio::test]
async fn r14_a_late_200_raises_what_had_ended_and_a_late_404_lowers_nothing() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let frozen = desk.begin(&mut lease).await;
    desk.clock.advance(Duration::from_secs(90));
    desk.work(|_| Outcome::Refused).await;
    desk.clock.advance(Duration::from_secs(3600));
    desk.work(|_| Outcome::Refused).await;
    assert_eq!(desk.state(&id).await, StateName::NeedsReview);

    let late = desk.finish(&frozen, Outcome::Refused).await;
    assert_eq!(
        late,
        Finished::Late {
            state: StateName::NeedsReview
        }
    );
    let view = desk.view(&id).await;
    assert_eq!(
        view.attempts[0].result,
        AttemptResult::Lost,
        "still not known to have failed"
    );
    assert_eq!(
        view.attempts[0].late,
        Some((desk.now(), Outcome::Refused)),
        "but on record"
    );

    let late = desk.finish(&frozen, Outcome::Unlocked).await;
    assert_eq!(
        late,
        Finished::Late {
            state: StateName::Unlocked
        }
    );
    let late = desk.finish(&frozen, Outcome::Refused).await;
    assert_eq!(
        late,
        Finished::Late {
            state: StateName::Unlocked
        }
    );
    let view = desk.view(&id).await;
    assert_eq!(view.state, StateName::Unlocked);
    assert_eq!(view.details.by, Some(view.attempts[0].code.clone()));
    assert!(desk.device(SERIAL).await.codes[0].used_at.is_some());
}

#[tokio::test]
async fn r14_a_late_200_ends_an_unlock_that_goes_on() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let frozen = desk.begin(&mut lease).await;
    desk.clock.advance(Duration::from_secs(90));
    desk.work(|_| Outcome::Refused).await;
    assert_eq!(desk.state(&id).await, StateName::Waiting);
    assert_eq!(
        desk.finish(&frozen, Outcome::Unlocked).await,
        Finished::Late {
            state: StateName::Unlocked
        }
    );
    assert!(desk.view(&id).await.is_done());
}

#[tokio::test]
async fn r16_a_double_send_after_a_freeze_is_found_recorded_and_shown() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    let id = desk.unlock(SERIAL).await;
    let mut lease = desk.claim().await;
    let frozen = desk.begin(&mut lease).await;
    desk.clock.advance(Duration::from_secs(90));
    desk.work(|_| Outcome::Refused).await;
    desk.clock.advance(Duration::from_secs(3600));
    let mut lease = desk.claim().await;
    let second = desk.begin(&mut lease).await;
    assert!(!desk.view(&id).await.double_sent);
    let late = desk.finish(&frozen, Outcome::Unlocked).await;
    assert_eq!(
        late,
        Finished::Late {
            state: StateName::Running
        },
        "a call is in flight: its holder ends it"
    );
    let view = desk.view(&id).await;
    assert!(view.double_sent);
    assert_eq!(
        view.attempts[0].overlaps.as_deref(),
        Some(second.ticket.attempt())
    );
    assert_eq!(
        view.attempts[1].overlaps.as_deref(),
        Some(frozen.ticket.attempt())
    );
    assert!(
        audit_texts(&desk)
            .await
            .iter()
            .any(|text| text.contains("unlock.double_sent"))
    );
    assert_eq!(
        desk.finish(&second, Outcome::Refused).await,
        Finished::Parked(StateName::Unlocked)
    );
}

#[tokio::test]
async fn r16_one_live_unlock_a_serial_over_all_organisations() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let Created::New(other) = desk
        .escrow
        .organisations()
        .create(&desk.actor, "Another School")
        .await
        .unwrap()
    else {
        panic!("it is new")
    };
    let set = Corrections {
        product_type: "iPhone14,5".parse().ok(),
        ..Corrections::default()
    };
    let permit = desk
        .escrow
        .authorise(&desk.actor, &other.id, SERIAL)
        .await
        .unwrap();
    desk.escrow
        .devices()
        .correct(&permit, &serial(SERIAL), &set)
        .await
        .unwrap();
    let permit = desk
        .escrow
        .authorise(&desk.actor, &other.id, SERIAL)
        .await
        .unwrap();
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, desk.wish(SERIAL))
        .await
        .unwrap();
    assert!(
        matches!(
            asked,
            Enqueued::LiveElsewhere(LiveElsewhere { id: None, .. })
        ),
        "whose it is stays with that organisation"
    );
    desk.work(|_| Outcome::Refused).await;
    assert_eq!(desk.state(&id).await, StateName::Rejected);
    let asked = desk
        .escrow
        .operations()
        .enqueue(&permit, desk.wish(SERIAL))
        .await
        .unwrap();
    assert!(matches!(asked, Enqueued::New(_)));
}

#[tokio::test]
async fn t33_a_second_operator_is_told_of_the_first_ones_unlock_and_sees_its_result() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    let second = Actor::system("second", Permissions::of(&[Permission::Unlock]));
    let permit = desk
        .escrow
        .authorise(&second, &desk.organisation, SERIAL)
        .await
        .unwrap();
    let operations = desk.escrow.operations();
    let (one, two) = tokio::join!(
        operations.enqueue(&permit, desk.wish(SERIAL)),
        operations.enqueue(&permit, desk.wish(SERIAL)),
    );
    for asked in [one.unwrap(), two.unwrap()] {
        assert!(
            matches!(asked, Enqueued::LiveElsewhere(LiveElsewhere { id: Some(live), .. }) if live == id)
        );
    }
    assert!(matches!(desk.ask(desk.wish(SERIAL)).await, Enqueued::UnderWay(view) if view.id == id));
    assert_eq!(desk.work(|_| Outcome::Unlocked).await.len(), 1);
    assert_eq!(desk.state(&id).await, StateName::Unlocked);
    assert!(claim(&desk.escrow, &settings("one")).await.is_none());
}

#[tokio::test]
async fn r16_two_concurrent_claims_get_different_operations() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    desk.device_of("C02XL0GTJGH6", &[CODE_B]).await;
    desk.unlock(SERIAL).await;
    desk.unlock("C02XL0GTJGH6").await;
    let (one, two) = (settings("one"), settings("two"));
    let (one, two, three) = tokio::join!(
        claim(&desk.escrow, &one),
        claim(&desk.escrow, &two),
        claim(&desk.escrow, &one),
    );
    let mut taken: Vec<String> = [one, two, three]
        .into_iter()
        .flatten()
        .map(|lease| lease.operation().to_owned())
        .collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 2);
}

#[tokio::test]
async fn a_place_is_left_for_an_urgent_unlock_and_it_goes_first() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    for n in 0..3 {
        let name = format!("BULK{n}");
        desk.device_of(&name, &[CODE_A]).await;
        desk.unlock(&name).await;
    }
    let narrow = WorkSettings {
        in_flight: 2,
        ..settings("one")
    };
    let _bulk = claim(&desk.escrow, &narrow).await.unwrap();
    assert!(
        claim(&desk.escrow, &narrow).await.is_none(),
        "the last place is not for bulk"
    );
    desk.ask(NewUnlock {
        urgent: true,
        ..desk.wish(SERIAL)
    })
    .await;
    let urgent = claim(&desk.escrow, &narrow).await.unwrap();
    assert!(urgent.is_urgent());
    assert!(claim(&desk.escrow, &narrow).await.is_none());
    assert!(
        desk.escrow
            .operations()
            .release(urgent, None)
            .await
            .unwrap()
    );
    assert!(
        claim(&desk.escrow, &settings("one"))
            .await
            .unwrap()
            .is_urgent()
    );
}

#[tokio::test]
async fn the_pace_is_shared_by_all_workers() {
    let desk = Desk::with_codes(&[CODE_A, CODE_B]).await;
    desk.device_of("C02XL0GTJGH6", &[CODE_B]).await;
    desk.unlock(SERIAL).await;
    desk.unlock("C02XL0GTJGH6").await;
    let slow = |owner: &str| WorkSettings {
        pace: Rate::per_second(1.0),
        ..settings(owner)
    };
    let mut lease = claim(&desk.escrow, &slow("one")).await.unwrap();
    let Claim::Nothing {
        look_again_at: Some(at),
    } = desk.escrow.operations().claim(&slow("two")).await.unwrap()
    else {
        panic!("the second call has to wait")
    };
    let Advance::Call(begun) = desk
        .escrow
        .operations()
        .advance(&mut lease, &slow("one"))
        .await
        .unwrap()
    else {
        panic!("the claim paid for the first call")
    };
    assert_eq!(desk.finish(&begun, Outcome::Refused).await, Finished::More);
    let paced = desk
        .escrow
        .operations()
        .advance(&mut lease, &slow("one"))
        .await
        .unwrap();
    assert!(matches!(paced, Advance::Paced { until } if until == at));
    desk.clock.set(at);
    let again = desk
        .escrow
        .operations()
        .advance(&mut lease, &slow("one"))
        .await
        .unwrap();
    assert!(matches!(again, Advance::Call(_)));
    assert!(claim(&desk.escrow, &slow("two")).await.is_none());
}

#[tokio::test]
async fn a_restart_frees_the_leases_of_the_process_before() {
    let desk = Desk::in_a_file(&[CODE_A]).await;
    desk.device_of("C02XL0GTJGH6", &[CODE_B]).await;
    let (in_flight, held) = (desk.unlock(SERIAL).await, desk.unlock("C02XL0GTJGH6").await);
    let mut first = desk.claim().await;
    desk.begin(&mut first).await;
    let _second = desk.claim().await;
    desk.escrow.close().await;

    let escrow = open_in(
        desk.escrow.folder(),
        escrow::Database::Embedded,
        &desk.clock,
        3,
    )
    .await
    .unwrap();
    let permit = escrow
        .authorise(&desk.actor, &desk.organisation, "")
        .await
        .unwrap();
    let view = escrow
        .operations()
        .get(&permit, &in_flight)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (view.state, view.attempts[0].result),
        (StateName::Queued, AttemptResult::Lost)
    );
    let view = escrow
        .operations()
        .get(&permit, &held)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((view.state, view.attempts.len()), (StateName::Queued, 0));
    assert!(claim(&escrow, &settings("three")).await.is_some());
}

#[tokio::test]
async fn r21_after_a_restore_every_live_unlock_needs_a_person() {
    let desk = Desk::with_codes(&[CODE_A]).await;
    let id = desk.unlock(SERIAL).await;
    assert_eq!(
        desk.escrow.operations().hold_after_restore().await.unwrap(),
        1
    );
    assert!(
        claim(&desk.escrow, &settings("one")).await.is_none(),
        "nothing fires by itself"
    );
    assert_eq!(
        desk.view(&id).await.details.review,
        Some(ReviewReason::Restored)
    );
    desk.clock.advance(Duration::from_secs(1));
    desk.escrow
        .operations()
        .resume(&desk.may_unlock().await, &id)
        .await
        .unwrap();
    assert_eq!(desk.work(|_| Outcome::Unlocked).await.len(), 1);
}
