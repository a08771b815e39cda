//! Several processes on one PostgreSQL database, and what happens to it: restarts, failover, answers that never come.

use std::sync::Arc;
use std::time::Duration;

use activation_lock::time::Timestamp;
use escrow::clock::{Clock, Sleep};
use escrow::keys::Step;
use escrow::meta::DataKind;
use escrow::organisations::Created;
use escrow::permit::{Actor, Admin, Permissions, Permit};
use escrow::{Database, Escrow, Opening, Weakness};
use seal::{KeyEncryptionKey, RecoveryKey};
use sim::Postgres;
use sim::postgres::Keeping;
use tempfile::TempDir;

use crate::support::{CODE_A, CODE_B, Seeded, Vault, open_in};

mod encrypted;
mod moving;
mod proxy;

/// How long word may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn server() -> Postgres {
    Postgres::start(Keeping::Unsynced).unwrap()
}

/// Another process on the database of a vault, with a folder of its own.
async fn another(vault: &Vault, address: &str, folder: &TempDir, seed: u64) -> Escrow {
    let database = Database::Postgres(address.parse().unwrap());
    open_in(folder.path(), database, &vault.clock, seed)
        .await
        .unwrap()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes in time")
}

#[tokio::test]
async fn what_one_replica_has_to_do_the_others_are_told_of() {
    let server = server();
    let address = server.create("vault").unwrap();
    let vault = Vault::on(&address).await;
    let folder = TempDir::new().unwrap();
    let other = another(&vault, &address, &folder, 9).await;
    let mut changes = other.connection_changes();
    vault.connection("one").await;
    in_time(changes.changed()).await.unwrap();
    vault.type_code("SERIAL000001", CODE_A).await;
    vault.reveal("SERIAL000001").await;
    in_time(other.courier_woken()).await;
    other.close().await;
}

#[tokio::test]
async fn a_replica_goes_on_while_a_later_program_widens_the_schema() {
    let server = server();
    let address = server.create("vault").unwrap();
    let vault = Vault::on(&address).await;
    let work = async |serial: &str| {
        vault.type_code(serial, CODE_A).await;
        vault.connection(&serial.to_lowercase()).await;
        assert!(vault.reveal(serial).await[0].text.expose() == CODE_A);
        assert!(vault.record_is_whole().await);
    };
    // Its statements are prepared, each on the connection that runs it.
    for serial in ["SERIAL000001", "SERIAL000002", "SERIAL000003"] {
        work(serial).await;
    }
    let widen = "DO $$ DECLARE name TEXT; BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
         EXECUTE format('ALTER TABLE %I ADD COLUMN later BIGINT NOT NULL DEFAULT 0', name); END LOOP; END $$; \
         UPDATE meta SET schema_version = schema_version + 1";
    server.sql("vault", widen).unwrap();
    for serial in ["SERIAL000004", "SERIAL000005", "SERIAL000006"] {
        work(serial).await;
    }
    // It may also be started anew.
    let folder = TempDir::new().unwrap();
    another(&vault, &address, &folder, 9).await.close().await;
}

#[tokio::test]
async fn r25_what_is_sealed_with_new_keys_opens_in_every_replica_at_once() {
    let server = server();
    let address = server.create("vault").unwrap();
    let mut vault = Vault::on(&address).await;
    let folder = TempDir::new().unwrap();
    let other = another(&vault, &address, &folder, 9).await;
    let permit: Permit<Admin> = vault.permit("keys").await;
    vault.escrow.keys().rotate(&permit).await.unwrap();
    vault.type_code("SERIAL000001", CODE_A).await;
    // The other one goes on with the new key, in the same moment.
    let first = std::mem::replace(&mut vault.escrow, other);
    assert!(vault.reveal("SERIAL000001").await[0].text.expose() == CODE_A);
    vault.type_code("SERIAL000002", CODE_B).await;
    while first.keys().step().await.unwrap() == Step::More {}
    let other = std::mem::replace(&mut vault.escrow, first);
    assert!(vault.reveal("SERIAL000002").await[0].text.expose() == CODE_B);
    other.close().await;
}

/// Types codes for as many devices as come, until told to stop; gives how many were acknowledged.
async fn type_on(vault: &Vault, who: &str, stop: &std::sync::atomic::AtomicBool) -> u32 {
    let mut typed = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        vault.type_code(&format!("{who}{typed:08}"), CODE_A).await;
        typed += 1;
    }
    typed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_server_that_is_killed_and_comes_back_loses_nothing_and_repeats_nothing() {
    let server = Arc::new(server());
    let address = server.create("vault").unwrap();
    let vault = Arc::new(Vault::on(&address).await);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = ["ONE", "TWO", "SIX", "TEN"]
        .map(|who| {
            let (vault, stop) = (vault.clone(), stop.clone());
            (
                who,
                tokio::spawn(async move { type_on(&vault, who, &stop).await }),
            )
        })
        .into();
    for round in 0..4 {
        let server = server.clone();
        tokio::task::spawn_blocking(move || {
            if round % 2 == 0 {
                server.kill().unwrap();
            } else {
                server.stop().unwrap();
            }
            server.begin().unwrap();
        })
        .await
        .unwrap();
        // It is in use again before it goes down the next time.
        vault.type_code(&format!("BETWEEN{round:04}"), CODE_B).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for (who, writer) in writers {
        let typed = in_time(writer).await.unwrap();
        assert!(typed > 0, "{who}");
        for number in 0..typed {
            let device = vault.device(&format!("{who}{number:08}")).await;
            assert_eq!(device.codes.len(), 1);
        }
    }
    // Each verb once: its audit row is there, and not a second one.
    let rows = server
        .sql(
            "vault",
            "SELECT COUNT(*) - COUNT(DISTINCT subject) FROM audit WHERE action = 'code.typed'",
        )
        .unwrap();
    assert_eq!(rows, "0");
    assert!(vault.record_is_whole().await);
}

/// Waits until a standby has everything that its primary has kept so far.
pub(crate) async fn is_followed(primary: &Postgres, standby: &Postgres) {
    let here = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()");
    let there = format!(
        "SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn",
        here.unwrap()
    );
    while standby.sql("postgres", &there).unwrap() != "t" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_standby_that_takes_over_is_gone_on_with() {
    let primary = server();
    let standby = primary.standby().unwrap();
    primary.sql("postgres", "CREATE DATABASE vault").unwrap();
    let both = format!(
        "postgres://lockwarden@127.0.0.1:{},127.0.0.1:{}/vault",
        standby.port(),
        primary.port()
    );
    let vault = Vault::on(&both).await;
    vault.type_code("SERIAL000001", CODE_A).await;
    let found = async || vault.escrow.live_settings().await.unwrap().weaknesses();
    let expected = [Weakness::Fsync, Weakness::AsynchronousStandby];
    in_time(async { while found().await != expected {} }).await;
    is_followed(&primary, &standby).await;
    primary.kill().unwrap();
    standby.promote().unwrap();
    vault.type_code("SERIAL000002", CODE_B).await;
    assert!(vault.reveal("SERIAL000001").await[0].text.expose() == CODE_A);
    assert!(vault.reveal("SERIAL000002").await[0].text.expose() == CODE_B);
}

/// A machine's clock that is two days ahead.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        server_time().plus(Duration::from_secs(2 * 24 * 60 * 60))
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test of what becomes of a wrong clock"
)]
fn server_time() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.unwrap().as_millis().try_into().unwrap())
}

#[tokio::test]
async fn the_servers_time_decides_where_machines_disagree() {
    let server = server();
    let address = server.create("vault").unwrap();
    let folder = TempDir::new().unwrap();
    let same = Seeded::new(1);
    let escrow = Escrow::open(Opening {
        folder: folder.path(),
        database: Database::Postgres(address.parse().unwrap()),
        kind: DataKind::Production,
        key: Arc::new(KeyEncryptionKey::generate(&same)),
        recovery: Some(RecoveryKey::generate(&same).public().clone()),
        clock: Arc::new(Ahead),
        random: Arc::new(Seeded::new(2)),
    })
    .await
    .unwrap();
    let actor = Actor::system("test", Permissions::all());
    let made = escrow
        .organisations()
        .create(&actor, "Example School")
        .await;
    assert!(matches!(made.unwrap(), Created::New(_)));
    let at = server
        .sql("vault", "SELECT MAX(created_at) FROM organisations")
        .unwrap();
    let off = server_time().since(Timestamp(at.parse().unwrap()));
    assert!(off < Duration::from_secs(3600), "{off:?}");
    let now = escrow.clock().now();
    assert!(now.since(server_time()) < Duration::from_secs(3600));
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledged_is_found_out() {
    let server = server();
    let address = server.create("vault").unwrap();
    let vault = Vault::on(&address).await;
    let found = async || vault.escrow.live_settings().await.unwrap().weaknesses();
    assert_eq!(found().await, [Weakness::Fsync]);
    server
        .configure("fsync = on\nsynchronous_commit = off\nfull_page_writes = off\n")
        .unwrap();
    server.reload().unwrap();
    in_time(async {
        while found().await != [Weakness::SynchronousCommit, Weakness::FullPageWrites] {}
    })
    .await;
    server
        .configure("synchronous_commit = on\nfull_page_writes = on\n")
        .unwrap();
    server.reload().unwrap();
    in_time(async { while !found().await.is_empty() {} }).await;
}
