//! A vault moves from a folder to a server, and back.

use activation_lock::operation::StateName;
use escrow::clock::ManualClock;
use escrow::moving::{self, Copied, Move};

use super::*;
use crate::operations::moved_desk;

fn clock() -> ManualClock {
    ManualClock::new(Timestamp(1_780_000_900_000))
}

#[tokio::test]
async fn r21_a_vault_moves_to_a_server_row_by_row_and_there_nothing_fires_by_itself() {
    let server = server();
    let address = server.create("vault").unwrap();
    let (vault, unlock) = moved_desk().await;
    let folder = vault.path().to_owned();
    let way = Move::ToServer {
        folder: folder.clone(),
        server: address.parse().unwrap(),
    };
    // While a process has the folder, nothing is copied.
    assert!(moving::copy(&way, &clock(), |_| {}).await.is_err());
    vault.escrow.close().await;

    // One that is cut off leaves no vault behind, and the next goes on.
    let mut pages = 0;
    let cut_off = tokio::spawn({
        let way = way.clone();
        async move {
            moving::copy(&way, &clock(), move |_| {
                pages += 1;
                assert!(pages < 4, "it is cut off here");
            })
            .await
        }
    });
    assert!(cut_off.await.is_err());
    let database = Database::Postgres(address.parse().unwrap());
    let unfinished = Escrow::status(&folder, database.clone(), &clock())
        .await
        .unwrap_err();
    assert!(
        unfinished.to_string().contains("not finished"),
        "{unfinished}"
    );
    let mut first = None;
    let moved = moving::copy(&way, &clock(), |so_far: Copied| {
        first.get_or_insert(so_far);
    })
    .await
    .unwrap();
    assert!(first.unwrap().rows > 0);
    assert_eq!(
        (moved.copied.rows, moved.copied.compared),
        (moved.copied.of, moved.copied.of)
    );
    assert!(moved.left.is_some() && !folder.join("lockwarden.db").exists());
    // Nothing is copied over a vault.
    std::fs::copy(moved.left.unwrap(), folder.join("lockwarden.db")).unwrap();
    let again = moving::copy(&way, &clock(), |_| {}).await.unwrap_err();
    assert!(again.to_string().contains("over anything"), "{again}");

    let mut vault = vault;
    vault.escrow = open_in(&folder, database, &vault.clock, 7).await.unwrap();
    assert!(
        vault
            .reveal("C02XL0GTJGH5")
            .await
            .iter()
            .any(|code| code.text.expose() == CODE_A)
    );
    let permit = vault.permit(&unlock).await;
    let view = vault
        .escrow
        .operations()
        .get(&permit, &unlock)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.state, StateName::NeedsReview);
    assert!(vault.record_is_whole().await);
    vault.escrow.close().await;

    // And back, into another folder.
    let back = TempDir::new().unwrap();
    let way = Move::ToFolder {
        server: address.parse().unwrap(),
        folder: back.path().to_owned(),
    };
    moving::copy(&way, &clock(), |_| {}).await.unwrap();
    vault.escrow = open_in(back.path(), Database::Embedded, &vault.clock, 8)
        .await
        .unwrap();
    assert!(
        vault
            .reveal("C02XL0GTJGH5")
            .await
            .iter()
            .any(|code| code.text.expose() == CODE_A)
    );
    assert!(vault.record_is_whole().await);
}

#[tokio::test]
async fn a_copy_that_differs_from_what_is_now_there_is_no_vault() {
    let server = server();
    let address = server.create("vault").unwrap();
    let (vault, _) = moved_desk().await;
    vault.escrow.close().await;
    let way = Move::ToServer {
        folder: vault.path().to_owned(),
        server: address.parse().unwrap(),
    };
    let mut is_spoilt = false;
    let spoilt = moving::copy(&way, &clock(), |so_far| {
        if so_far.rows == so_far.of && !is_spoilt {
            is_spoilt = true;
            let sql = "UPDATE devices SET device_name = 'another'";
            server.sql("vault", sql).unwrap();
        }
    })
    .await
    .unwrap_err();
    assert!(
        is_spoilt && spoilt.to_string().contains("devices"),
        "{spoilt}"
    );
    assert!(vault.path().join("lockwarden.db").exists());
}
