//! Server tokens: which is used, what is wrong with them, and what goes on when that is mended (T6, T10).

use super::*;

#[tokio::test]
async fn t10_an_expired_token_is_not_used_and_a_renewed_one_lets_the_lock_go_on() {
    let desk = Desk::new().await;
    desk.clock.advance(300 * DAY);
    let id = desk.lock(SERIAL).await;
    let mut lease = desk.claim().await;
    assert!(matches!(
        desk.advance(&mut lease).await,
        Advance::Parked(StateName::Waiting)
    ));
    assert_eq!(
        desk.view(&id).await.details.waits_for,
        Some(WaitReason::NoCredential)
    );
    let renewed = put_token(&desk, "main").await;
    assert_eq!(
        (renewed.id.as_str(), renewed.version),
        (desk.token.id.as_str(), 2)
    );
    let begun = desk.begin().await;
    assert_eq!(begun.via.version, 2);
    desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
}

#[tokio::test]
async fn t6_terms_that_are_not_signed_are_shown_and_the_lock_goes_on_once_they_are() {
    let desk = Desk::new().await;
    let (id, hash) = desk.lock_answered(LockOutcome::TermsNotSigned).await;
    assert_eq!(
        desk.view(&id).await.details.waits_for,
        Some(WaitReason::TermsNotSigned)
    );
    let permit = desk.permit("tokens").await;
    let tokens = desk.escrow.server_tokens();
    let shown = tokens.list(&permit).await.unwrap().remove(0);
    assert_eq!(
        shown.problem.map(|(problem, _)| problem),
        Some(Problem::TermsNotSigned)
    );
    desk.clock.advance(Duration::from_secs(30 * 60));
    let nothing = desk.escrow.operations().claim(&settings()).await.unwrap();
    assert!(
        matches!(nothing, Claim::Nothing { .. }),
        "it is not tried until it is mended"
    );
    tokens.note(&shown, None).await.unwrap();
    assert_eq!(tokens.list(&permit).await.unwrap()[0].problem, None);
    let begun = desk.begin().await;
    assert!(begun.escrow_key == hash);
    desk.finish(&begun, LockOutcome::Locked).await;
    assert_eq!(desk.view(&id).await.state, StateName::Locked);
}

#[tokio::test]
async fn t5_where_apple_does_not_let_a_token_see_a_device_the_list_is_read_again() {
    let desk = Desk::new().await;
    desk.listed_whole(&[SERIAL]).await;
    let every = Duration::from_secs(60 * 60);
    assert!(desk.escrow.listing().due(every).await.unwrap().0.is_empty());
    desk.lock_answered(LockOutcome::NotAccessible).await;
    assert_eq!(desk.escrow.listing().due(every).await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn a_token_and_a_key_are_sealed_named_and_removed() {
    let desk = Desk::new().await;
    let permit = desk.permit("tokens").await;
    let tokens = desk.escrow.server_tokens();
    let may = desk.permit("tokens").await;
    let key = tokens
        .add_key(&may, "certificate".to_owned(), "private".to_owned().into())
        .await
        .unwrap();
    let opened = tokens.open_keys(&may).await.unwrap();
    assert_eq!(opened.len(), 1);
    assert!(opened[0].private_key.as_str() == "private");
    assert_eq!(tokens.keys(&permit).await.unwrap(), vec![key.clone()]);
    let new = NewServerToken {
        name: "main".to_owned(),
        access: Access::Apple {
            json: "{\"a\":1}".to_owned().into(),
            expires_at: desk.now().plus(DAY),
            key: Some(key.id),
        },
    };
    let kept = tokens.put(&may, new).await.unwrap();
    assert!(tokens.keys(&permit).await.unwrap()[0].used_at.is_some());
    let open = tokens
        .open(&desk.organisation, &kept.id)
        .await
        .unwrap()
        .unwrap();
    assert!(open.secret.as_str() == "{\"a\":1}");
    assert!(tokens.remove(&may, "main").await.unwrap());
    assert!(!tokens.remove(&may, "main").await.unwrap());
    assert!(
        tokens
            .open(&desk.organisation, &kept.id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(tokens.list(&permit).await.unwrap().is_empty());
}

#[tokio::test]
async fn r5_the_list_of_another_server_is_read_whole() {
    let desk = Desk::new().await;
    let tokens = desk.escrow.server_tokens();
    tokens
        .learn(&desk.token, Some("one"), Some("Server"), Some("School"))
        .await
        .unwrap();
    let permit = desk.permit("tokens").await;
    let shown = tokens.list(&permit).await.unwrap().remove(0);
    assert_eq!(shown.server_name.as_deref(), Some("Server"));
    desk.listed_whole(&["C02XL0GTJGH5"]).await;
    assert!(desk.reads_changes().await);
    tokens
        .learn(&desk.token, Some("one"), None, None)
        .await
        .unwrap();
    assert!(desk.reads_changes().await);
    tokens
        .learn(&desk.token, Some("two"), None, None)
        .await
        .unwrap();
    assert!(!desk.reads_changes().await);
}

#[tokio::test]
async fn a_lock_goes_on_with_the_token_that_was_imported_in_the_place_of_its_own() {
    let desk = Desk::new().await;
    let mut wish = desk.wish(SERIAL);
    wish.server_token = Some("main".to_owned());
    let Enqueued::New(lock) = desk.ask(wish).await else {
        panic!("it is new")
    };
    put_token(&desk, "other").await;
    let permit = desk.permit("tokens").await;
    let tokens = desk.escrow.server_tokens();
    tokens.remove(&permit, "other").await.unwrap();
    tokens.remove(&permit, "main").await.unwrap();
    desk.clock.advance(Duration::from_secs(1));
    let mut lease = desk.claim().await;
    assert!(matches!(
        desk.advance(&mut lease).await,
        Advance::Parked(StateName::Waiting)
    ));
    assert_eq!(
        desk.view(&lock.id).await.details.waits_for,
        Some(WaitReason::NoCredential)
    );
    put_token(&desk, "other").await;
    let again = put_token(&desk, "main").await;
    desk.clock.advance(Duration::from_secs(1));
    let begun = desk.begin().await;
    assert_eq!(begun.via.server_token, again.id, "by its name");
}

#[tokio::test]
async fn r20_a_list_is_read_whole_with_every_new_token_for_it_may_be_of_another_server() {
    let desk = Desk::new().await;
    desk.listed_whole(&[SERIAL]).await;
    assert!(desk.reads_changes().await);
    put_token(&desk, "main").await;
    let (due, _) = desk.escrow.listing().due(DAY).await.unwrap();
    assert_eq!(due.len(), 1, "at once");
    assert_eq!(
        (due[0].reading, due[0].cursor.clone()),
        (escrow::listing::Reading::New, None)
    );
}

#[tokio::test]
async fn t6_access_denied_is_shown_as_such() {
    let desk = Desk::new().await;
    let (id, _) = desk.lock_answered(LockOutcome::AccessDenied).await;
    assert_eq!(
        desk.view(&id).await.details.waits_for,
        Some(WaitReason::AccessDenied)
    );
    let permit = desk.permit("tokens").await;
    let token = desk
        .escrow
        .server_tokens()
        .list(&permit)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        token.problem.map(|(problem, _)| problem),
        Some(Problem::AccessDenied)
    );
}

#[tokio::test]
async fn a_page_of_a_token_that_was_removed_or_renewed_meanwhile_is_not_taken_in() {
    use escrow::listing::{Page, Reading};
    let desk = Desk::new().await;
    let listing = desk.escrow.listing();
    let page = || Page {
        lines: Vec::new(),
        cursor: None,
        more: false,
    };
    assert!(
        listing
            .page(&desk.token, Reading::Whole, page())
            .await
            .unwrap()
            .is_some()
    );
    let renewed = put_token(&desk, "main").await;
    assert!(
        listing
            .page(&desk.token, Reading::Whole, page())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        listing
            .page(&renewed, Reading::Whole, page())
            .await
            .unwrap()
            .is_some()
    );
    let permit = desk.permit("tokens").await;
    desk.escrow
        .server_tokens()
        .remove(&permit, "main")
        .await
        .unwrap();
    assert!(
        listing
            .page(&renewed, Reading::Whole, page())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn t6_after_a_refusal_the_list_shows_soon_whether_it_was_mended() {
    let desk = Desk::new().await;
    desk.listed_whole(&[SERIAL]).await;
    desk.lock_answered(LockOutcome::TermsNotSigned).await;
    let (due, next) = desk.escrow.listing().due(DAY).await.unwrap();
    assert!(due.is_empty());
    assert!(next.unwrap() <= desk.now().plus(Duration::from_secs(300)));
}

#[tokio::test]
async fn a_token_is_found_by_its_name_and_its_list_is_read_at_once() {
    let desk = Desk::new().await;
    desk.listed_whole(&[SERIAL]).await;
    let permit = desk.permit("tokens").await;
    let tokens = desk.escrow.server_tokens();
    let all = tokens.list(&permit).await.unwrap();
    let found = tokens.find(&desk.organisation, &all[0].name).await.unwrap();
    assert_eq!(found.unwrap().id, all[0].id);
    assert!(
        tokens
            .find(&desk.organisation, "none")
            .await
            .unwrap()
            .is_none()
    );
    let every = Duration::from_secs(60 * 60);
    assert!(desk.escrow.listing().due(every).await.unwrap().0.is_empty());
    let may = desk.permit("tokens").await;
    assert!(tokens.list_now(&may, &all[0].name).await.unwrap().is_some());
    assert_eq!(desk.escrow.listing().due(every).await.unwrap().0.len(), 1);
}
