//! Notices on record, and what becomes of them: taken once, left by the dead to the next, given up at last, none in another's way.

use std::time::Duration;

use escrow::notices::{ChannelView, Delivery, NewAddress, NewChannel, NoticeKind, Taken};
use escrow::permit::{Admin, Permit};

use crate::beside::run;
use crate::support::Vault;

async fn channel(vault: &Vault, name: &str) -> ChannelView {
    let permit: Permit<Admin> = vault.permit("notices").await;
    let new = NewChannel {
        name: name.to_owned(),
        address: NewAddress::Webhook {
            url: "https://chat.example.org/hook/secret-in-the-path".to_owned(),
            shown: "chat.example.org".to_owned(),
        },
        everywhere: false,
    };
    vault.escrow.notices().add(&permit, new).await.unwrap().0
}

async fn test(vault: &Vault, channel: &ChannelView) {
    let permit: Permit<Admin> = vault.permit("notices").await;
    assert!(
        vault
            .escrow
            .notices()
            .test(&permit, &channel.id)
            .await
            .unwrap()
    );
}

async fn claim(vault: &Vault) -> Option<Delivery> {
    vault.escrow.notices().claim().await.unwrap().ok()
}

#[tokio::test]
async fn who_dies_with_a_notice_in_hand_leaves_it_to_the_next_under_the_same_identifier() {
    let mut vault = Vault::new().await;
    let channel = channel(&vault, "chat").await;
    test(&vault, &channel).await;
    let first = claim(&vault).await.unwrap();
    assert_eq!((first.kind, first.secrets.len()), (NoticeKind::Test, 1));
    assert!(claim(&vault).await.is_none(), "it is in somebody's hands");
    vault.reopen(|_| ()).await;
    assert!(claim(&vault).await.is_none(), "and may still be on its way");
    vault.clock.advance(Duration::from_secs(120));
    let again = claim(&vault).await.unwrap();
    assert_eq!(again.notice, first.notice);
    vault
        .escrow
        .notices()
        .finish(&again, &Taken::Yes)
        .await
        .unwrap();
    // The late answer of the first changes nothing.
    vault
        .escrow
        .notices()
        .finish(&first, &Taken::Never("late".to_owned()))
        .await
        .unwrap();
    let permit: Permit<Admin> = vault.permit("notices").await;
    let listed = vault
        .escrow
        .notices()
        .list(&permit)
        .await
        .unwrap()
        .remove(0);
    assert!(listed.failing.is_none() && listed.sent_at.is_some());
    vault.clock.advance(Duration::from_secs(86_400));
    assert!(claim(&vault).await.is_none());
    for row in crate::beside::audit_texts(&vault).await {
        assert!(!row.contains("secret-in-the-path"));
    }
}

#[tokio::test]
async fn a_notice_that_nobody_takes_is_given_up_after_three_days() {
    let vault = Vault::new().await;
    let channel = channel(&vault, "chat").await;
    test(&vault, &channel).await;
    let (mut tries, began) = (0, vault.now());
    while vault.now().since(began) < Duration::from_secs(5 * 86_400) {
        match vault.escrow.notices().claim().await.unwrap() {
            Ok(delivery) => {
                tries += 1;
                let later = Taken::Later("status 500".to_owned(), None);
                vault
                    .escrow
                    .notices()
                    .finish(&delivery, &later)
                    .await
                    .unwrap();
            }
            Err(Some(due)) => vault.clock.advance(due.since(vault.now())),
            Err(None) => break,
        }
    }
    let took = vault.now().since(began);
    assert!(
        took >= Duration::from_secs(3 * 86_400) && took < Duration::from_secs(4 * 86_400),
        "{took:?}"
    );
    assert!((50..150).contains(&tries), "{tries} tries");
}

#[tokio::test]
async fn a_channel_whose_secret_does_not_open_is_in_nobodys_way() {
    let vault = Vault::new().await;
    let (broken, whole) = (
        channel(&vault, "broken").await,
        channel(&vault, "whole").await,
    );
    run(
        &vault,
        "UPDATE notice_channels SET secret = x'00' WHERE name = 'broken'",
    )
    .await;
    test(&vault, &broken).await;
    test(&vault, &whole).await;
    assert!(claim(&vault).await.is_none(), "the broken one is given up");
    let delivery = claim(&vault).await.unwrap();
    assert_eq!(delivery.channel.name, "whole");
}

#[tokio::test]
async fn a_channel_gets_another_secret_shows_that_it_fails_and_is_removed() {
    let vault = Vault::new().await;
    let channel = channel(&vault, "chat").await;
    let permit: Permit<Admin> = vault.permit("notices").await;
    let notices = vault.escrow.notices();
    let rotated = notices.rotate_secret(&permit, &channel.id).await.unwrap();
    assert!(rotated.is_some());
    test(&vault, &channel).await;
    let delivery = claim(&vault).await.unwrap();
    assert_eq!(delivery.secrets.len(), 2, "the one before still signs");
    let refused = Taken::Later("it said 503".to_owned(), None);
    notices.finish(&delivery, &refused).await.unwrap();
    let failing = notices.failing().await.unwrap();
    assert_eq!(failing[0].0, "chat");
    assert!(failing[0].2.contains("503"), "{}", failing[0].2);
    assert!(notices.remove(&permit, &channel.id).await.unwrap());
    assert!(!notices.remove(&permit, &channel.id).await.unwrap());
    assert!(notices.failing().await.unwrap().is_empty());
    assert!(claim(&vault).await.is_none());
    let left = async || {
        let mut beside = crate::beside::Beside::of(vault.escrow.folder()).await;
        beside.texts("SELECT id FROM notices").await.len()
    };
    assert_eq!(left().await, 1);
    vault.clock.advance(Duration::from_secs(200 * 86_400));
    notices.sweep().await.unwrap();
    assert_eq!(left().await, 0);
}
