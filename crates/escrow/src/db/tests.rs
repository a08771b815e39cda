use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::Error;
use crate::clock::ManualClock;

/// Gives different bytes at every call, and the same ones in every run. Not random: for tests alone.
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The database of a folder, on whichever engine the tests run; with one connection that writes, and one that reads.
pub(crate) fn database(folder: &Path) -> Database {
    sim::test_database(folder).map_or(Database::Embedded, |address| {
        let address = format!("{address}?connections=2");
        Database::Postgres(address.parse().unwrap())
    })
}

/// What is said differently to the engine that the tests run on.
pub(crate) fn said(sqlite: &'static str, postgres: &'static str) -> &'static str {
    match std::env::var_os(sim::postgres::TEST_SERVER) {
        None => sqlite,
        Some(_) => postgres,
    }
}

/// The moment at which every test begins.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);

pub(crate) async fn open(folder: &Path) -> Db {
    try_open(folder, DataKind::Production)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn try_open(folder: &Path, kind: DataKind) -> std::result::Result<Db, OpenError> {
    open_in(folder, database(folder), kind, 1).await
}

async fn open_in(
    folder: &Path,
    database: Database,
    kind: DataKind,
    seed: u64,
) -> std::result::Result<Db, OpenError> {
    let clock = ManualClock::new(START);
    Db::open(Opening {
        folder,
        database,
        kind,
        clock: Arc::new(Steady::new(Arc::new(clock))),
        random: Arc::new(Seeded::new(seed)),
    })
    .await
}

/// An open database with a table `things`.
async fn things() -> (TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = open(folder.path()).await;
    db.write("create", async |tx| {
        tx.execute("CREATE TABLE things (name TEXT PRIMARY KEY)", params![])
            .await
    })
    .await
    .unwrap();
    (folder, db)
}

async fn add(db: &Db, name: &str) -> Result<u64> {
    let name = name.to_owned();
    db.write("add", async move |tx| insert(tx, &name).await)
        .await
}

async fn insert(tx: &mut Tx<'_>, name: &str) -> Result<u64> {
    tx.execute("INSERT INTO things (name) VALUES ($1)", params![name])
        .await
}

async fn select(tx: &mut Tx<'_>) -> Result<Vec<String>> {
    tx.fetch_all("SELECT name FROM things ORDER BY name", params![])
        .await?
        .iter()
        .map(|row| row.get("name"))
        .collect()
}

async fn names(db: &Db) -> Vec<String> {
    db.read(select).await.unwrap()
}

/// Keeps the writer busy until a permit is added to the gate that it gives.
async fn hold(db: &Db) -> (Arc<Semaphore>, JoinHandle<Result<()>>) {
    let (gate, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (db, waits, says) = (db.clone(), gate.clone(), entered.clone());
    let held = tokio::spawn(async move {
        db.write("hold", async move |_| {
            says.add_permits(1);
            waits.acquire().await.unwrap().forget();
            Ok(())
        })
        .await
    });
    entered.acquire().await.unwrap().forget();
    (gate, held)
}

/// Waits until so many verbs are in line behind a held writer: they will run in one batch.
async fn in_line(db: &Db, verbs: usize) {
    while QUEUE - db.0.writer.capacity() < verbs {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_verb_that_fails_leaves_nothing_and_does_not_touch_the_others_of_its_batch() {
    let (_folder, db) = things().await;
    let (gate, held) = hold(&db).await;
    let verbs: Vec<_> = (0..60)
        .map(|number| {
            let db = db.clone();
            tokio::spawn(async move {
                db.write("half", async move |tx| {
                    insert(tx, &format!("first {number:02}")).await?;
                    if number % 3 == 1 {
                        return Err(Error::Corrupt("a test"));
                    }
                    if number % 3 == 2 {
                        // Fails in the engine, half way.
                        insert(tx, &format!("first {number:02}")).await?;
                    }
                    insert(tx, &format!("second {number:02}")).await
                })
                .await
            })
        })
        .collect();
    in_line(&db, verbs.len()).await;
    gate.add_permits(1);
    held.await.unwrap().unwrap();
    let mut expected = Vec::new();
    for (number, verb) in verbs.into_iter().enumerate() {
        let result = verb.await.unwrap();
        match number % 3 {
            0 => {
                assert_eq!(result.unwrap(), 1);
                expected.extend([format!("first {number:02}"), format!("second {number:02}")]);
            }
            1 => assert!(matches!(result, Err(Error::Corrupt("a test")))),
            _ => assert!(matches!(result, Err(Error::Database(Fault::NotUnique(_))))),
        }
    }
    expected.sort();
    assert_eq!(names(&db).await, expected);
}

#[tokio::test]
async fn a_reader_sees_only_what_is_committed() {
    let (_folder, db) = things().await;
    let (gate, held) = hold(&db).await;
    let last = Arc::new(Semaphore::new(0));
    let reached = Arc::new(Semaphore::new(0));
    let (one, other) = (db.clone(), db.clone());
    let (waits, says) = (last.clone(), reached.clone());
    let first = tokio::spawn(async move { add(&one, "first").await });
    in_line(&db, 1).await;
    let second = tokio::spawn(async move {
        other
            .write("last of the batch", async move |tx| {
                let seen = select(tx).await?;
                says.add_permits(1);
                waits.acquire().await.unwrap().forget();
                Ok(seen)
            })
            .await
    });
    in_line(&db, 2).await;
    gate.add_permits(1);
    reached.acquire().await.unwrap().forget();
    // The first verb has run, and neither a reader nor its caller knows of it.
    assert!(names(&db).await.is_empty());
    held.await.unwrap().unwrap();
    assert!(!first.is_finished());
    last.add_permits(1);
    first.await.unwrap().unwrap();
    assert_eq!(
        second.await.unwrap().unwrap(),
        ["first"],
        "a batch is one transaction"
    );
    assert_eq!(names(&db).await, ["first"]);
}

#[tokio::test]
async fn a_read_sees_one_moment_however_long_it_takes() {
    let (_folder, db) = things().await;
    add(&db, "before").await.unwrap();
    let (began, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (reader, says, waits) = (db.clone(), began.clone(), go_on.clone());
    let reading = tokio::spawn(async move {
        reader
            .read(async move |tx| {
                let first = select(tx).await?;
                says.add_permits(1);
                waits.acquire().await.unwrap().forget();
                Ok((first, select(tx).await?))
            })
            .await
    });
    began.acquire().await.unwrap().forget();
    add(&db, "meanwhile").await.unwrap();
    go_on.add_permits(1);
    let (first, second) = reading.await.unwrap().unwrap();
    assert_eq!(
        (first, second),
        (vec!["before".to_owned()], vec!["before".to_owned()])
    );
    assert_eq!(names(&db).await, ["before", "meanwhile"]);
}

#[tokio::test]
async fn a_read_cannot_write() {
    let (_folder, db) = things().await;
    let refused = db.read(async |tx| insert(tx, "sneaked in").await).await;
    assert!(matches!(refused, Err(Error::Database(Fault::Engine(_)))));
    assert!(names(&db).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_writers_lose_nothing_and_get_identifiers_in_order() {
    let (_folder, db) = things().await;
    db.write("counter", async |tx| {
        tx.execute("CREATE TABLE counter (value BIGINT NOT NULL)", params![])
            .await?;
        tx.execute("INSERT INTO counter (value) VALUES (0)", params![])
            .await
    })
    .await
    .unwrap();
    let writers: Vec<_> = (0..200)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                db.write("count", async |tx| {
                    // Read, then write: a lost update would show.
                    let row = tx.fetch_one("SELECT value FROM counter", params![]).await?;
                    let value = row.get::<i64>("value")? + 1;
                    tx.execute("UPDATE counter SET value = $1", params![value])
                        .await?;
                    let id = tx.new_id().to_string();
                    insert(tx, &id).await?;
                    Ok((value, id))
                })
                .await
            })
        })
        .collect();
    let mut given = Vec::new();
    for writer in writers {
        given.push(writer.await.unwrap().unwrap());
    }
    given.sort();
    assert!(given.iter().map(|(value, _)| *value).eq(1..=200));
    assert!(given.is_sorted_by(|one, next| one.1 < next.1));
    assert!(
        names(&db)
            .await
            .into_iter()
            .eq(given.into_iter().map(|(_, id)| id))
    );
}

#[tokio::test]
async fn a_panic_in_a_verb_undoes_it_alone_and_the_writer_goes_on() {
    let (_folder, db) = things().await;
    let (gate, held) = hold(&db).await;
    let (panics, other) = (db.clone(), db.clone());
    let first = tokio::spawn(async move {
        panics
            .write("panics", async |tx| -> Result<u64> {
                insert(tx, "half done").await?;
                panic!("as it must in this test")
            })
            .await
    });
    let second = tokio::spawn(async move { add(&other, "whole").await });
    in_line(&db, 2).await;
    gate.add_permits(1);
    held.await.unwrap().unwrap();
    assert!(matches!(
        first.await.unwrap(),
        Err(Error::Database(Fault::Panicked { verb: "panics" }))
    ));
    second.await.unwrap().unwrap();
    let read = db
        .read(async |_| -> Result<u64> { panic!("as it must in this test") })
        .await;
    assert!(matches!(
        read,
        Err(Error::Database(Fault::Panicked { verb: "read" }))
    ));
    add(&db, "later").await.unwrap();
    assert_eq!(names(&db).await, ["later", "whole"]);
}

#[tokio::test]
async fn when_the_transaction_is_lost_every_caller_of_the_batch_is_told() {
    let (_folder, db) = things().await;
    let (gate, held) = hold(&db).await;
    let verbs = ["before", "breaks", "after"].map(|name| {
        let db = db.clone();
        tokio::spawn(async move {
            db.write(name, async move |tx| {
                insert(tx, name).await?;
                if name == "breaks" {
                    // As the engine itself does when the disk is full.
                    tx.execute("ROLLBACK", params![]).await?;
                }
                Ok(())
            })
            .await
        })
    });
    in_line(&db, verbs.len()).await;
    gate.add_permits(1);
    held.await.unwrap().unwrap();
    for verb in verbs {
        let result = verb.await.unwrap();
        assert!(
            matches!(
                result,
                Err(Error::Database(Fault::Commit(_) | Fault::Engine(_)))
            ),
            "{result:?}"
        );
    }
    assert!(names(&db).await.is_empty());
    add(&db, "later").await.unwrap();
    assert_eq!(names(&db).await, ["later"]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let (folder, db) = things().await;
    for number in 0..20 {
        add(&db, &format!("thing {number:02}")).await.unwrap();
    }
    // What a kill leaves: the files as they are, nothing flushed or closed.
    let left = tempfile::tempdir().unwrap();
    let again = if let Database::Postgres(address) = database(folder.path()) {
        // The server has it, for a process with another folder too.
        let database = Database::Postgres(address);
        open_in(left.path(), database, DataKind::Production, 2).await
    } else {
        for name in ["lockwarden.db", "lockwarden.db-wal"] {
            std::fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
        }
        try_open(left.path(), DataKind::Production).await
    };
    let again = again.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(names(&again).await.len(), 20);
}

#[tokio::test]
async fn a_closed_database_refuses_verbs_finishes_those_in_line_and_opens_again() {
    let (folder, db) = things().await;
    let (gate, held) = hold(&db).await;
    let (adds, closes) = (db.clone(), db.clone());
    let closing = tokio::spawn(async move { closes.close().await });
    in_line(&db, 1).await;
    let adding = tokio::spawn(async move { add(&adds, "in line").await });
    in_line(&db, 2).await;
    gate.add_permits(1);
    held.await.unwrap().unwrap();
    adding.await.unwrap().unwrap();
    closing.await.unwrap();
    assert!(matches!(
        add(&db, "late").await,
        Err(Error::Database(Fault::Closed))
    ));
    assert!(matches!(
        db.read(select).await,
        Err(Error::Database(Fault::Closed))
    ));
    db.close().await;
    let again = open(folder.path()).await;
    assert_eq!(names(&again).await, ["in line"]);
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let (folder, _db) = things().await;
    let refused = try_open(folder.path(), DataKind::Production)
        .await
        .err()
        .unwrap();
    assert!(matches!(&refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("in use by another lockwarden"));
}

#[tokio::test]
async fn a_sandbox_and_production_never_open_each_others_folder() {
    for (made, wanted) in [
        (DataKind::Production, DataKind::Sandbox),
        (DataKind::Sandbox, DataKind::Production),
    ] {
        let folder = tempfile::tempdir().unwrap();
        try_open(folder.path(), made)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
            .close()
            .await;
        let refused = try_open(folder.path(), wanted).await.err().unwrap();
        let OpenError::OtherKind {
            found,
            wanted: asked,
            ..
        } = &refused
        else {
            panic!("{refused}")
        };
        assert_eq!((*found, *asked), (made, wanted));
        // The refusal let go of the folder.
        try_open(folder.path(), made)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn only_a_program_older_than_the_oldest_compatible_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(folder.path()).await;
    let program = schema::program_version();
    db.write("newer", async move |tx| {
        tx.execute(
            "UPDATE meta SET schema_version = 9000, oldest_compatible = $1",
            params![program],
        )
        .await
    })
    .await
    .unwrap();
    db.close().await;
    let db = open(folder.path()).await;
    db.write("too new", async move |tx| {
        tx.execute(
            "UPDATE meta SET oldest_compatible = $1",
            params![program + 1],
        )
        .await
    })
    .await
    .unwrap();
    db.close().await;
    let refused = try_open(folder.path(), DataKind::Production)
        .await
        .err()
        .unwrap();
    let OpenError::ProgramTooOld {
        schema: 9000,
        oldest,
        program: ours,
        ..
    } = refused
    else {
        panic!("{refused}")
    };
    assert_eq!((oldest, ours), (program + 1, program));
    let status = Db::status(folder.path(), database(folder.path()), START)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
        .unwrap();
    assert!(!status.is_compatible());
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(folder.path()).await;
    db.write("not ours", async |tx| {
        tx.execute("DROP TABLE meta", params![]).await
    })
    .await
    .unwrap();
    db.close().await;
    let refused = try_open(folder.path(), DataKind::Production)
        .await
        .err()
        .unwrap();
    assert!(matches!(&refused, OpenError::NotOurs { .. }), "{refused}");
}

#[tokio::test]
async fn status_reads_beside_a_running_server_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        Db::status(folder.path(), database(folder.path()), START)
            .await
            .unwrap_or_else(|error| panic!("{error}")),
        None
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let _db = open(folder.path()).await;
    let status = Db::status(folder.path(), database(folder.path()), START)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
        .unwrap();
    assert_eq!(
        (status.kind, status.created_at),
        (DataKind::Production, START)
    );
    assert_eq!(
        (status.schema_version, status.program_version),
        (schema::program_version(), schema::program_version())
    );
    assert!(status.is_compatible() && status.pending.is_empty());
    assert_eq!(
        (status.recovery_public, status.recovery_opened_at),
        (None, None)
    );
}

#[tokio::test]
async fn the_live_writer_is_set_so_that_a_commit_is_on_disk() {
    let (_folder, db) = things().await;
    if let LiveSettings::Postgres { .. } = db.live_settings().await.unwrap() {
        // What its administrator has set is for `doctor`.
        return;
    }
    let expected = LiveSettings::Sqlite {
        journal_mode: "wal".to_owned(),
        synchronous: "full".to_owned(),
        foreign_keys: true,
        secure_delete: true,
    };
    assert_eq!(db.live_settings().await.unwrap(), expected);
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("deeper/data");
    let db = open(&folder).await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files = 0;
    for file in std::fs::read_dir(db.folder()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    // The lock, and where it is a file, the database, its write-ahead log and its index.
    assert_eq!(files, said("4", "1").parse::<i32>().unwrap());
}

#[tokio::test]
async fn values_come_back_as_they_went_in_and_a_wrong_type_is_named() {
    let (_folder, db) = things().await;
    db.write("values", async |tx| {
        tx.execute(
            said(
                "CREATE TABLE kinds (i INTEGER, r REAL, t TEXT, b BLOB)",
                "CREATE TABLE kinds (i BIGINT, r DOUBLE PRECISION, t TEXT, b BYTEA)",
            ),
            params![],
        )
        .await?;
        tx.execute(
            "INSERT INTO kinds VALUES ($1, $2, $3, $4), (NULL, NULL, NULL, $4)",
            params![i64::MIN, 0.5, "tëxt", vec![0_u8, 255]],
        )
        .await?;
        let row = tx
            .fetch_one(
                "SELECT i, r, t, b FROM kinds WHERE i IS NOT NULL",
                params![],
            )
            .await?;
        assert_eq!(row.get::<i64>("i")?, i64::MIN);
        assert_eq!(
            row.get::<Option<Timestamp>>("i")?,
            Some(Timestamp(i64::MIN))
        );
        assert!(row.get::<f64>("r")?.to_bits() == 0.5_f64.to_bits());
        assert_eq!(row.get::<String>("t")?, "tëxt");
        assert_eq!(row.get::<Vec<u8>>("b")?, [0, 255]);
        for (column, wrong) in [
            ("t", row.get::<i64>("t").err()),
            ("i", row.get::<u32>("i").err()),
            ("gone", row.get::<i64>("gone").err()),
        ] {
            let Some(Error::Database(Fault::Column { column: named, .. })) = wrong else {
                panic!("{column}")
            };
            assert_eq!(named, column);
        }
        let row = tx
            .fetch_one("SELECT i, r, t, b FROM kinds WHERE i IS NULL", params![])
            .await?;
        assert_eq!(row.get::<Option<i64>>("i")?, None);
        assert_eq!(row.get::<Option<String>>("t")?, None);
        assert!(row.get::<String>("t").is_err());
        let none = tx
            .fetch_one("SELECT i FROM kinds WHERE i = 7", params![])
            .await
            .err();
        assert!(matches!(none, Some(Error::Database(Fault::NoRow { .. }))));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_look_beside_a_running_server_reads_and_cannot_write() {
    let (folder, db) = things().await;
    let look = |kind| {
        Db::look(Opening {
            folder: folder.path(),
            database: database(folder.path()),
            kind,
            clock: Arc::new(Steady::new(Arc::new(ManualClock::new(START)))),
            random: Arc::new(Seeded::new(2)),
        })
    };
    let beside = look(DataKind::Production)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    db.write("add", async |tx| {
        tx.execute("INSERT INTO things (name) VALUES ('one')", params![])
            .await
    })
    .await
    .unwrap();
    let count = async |tx: &mut Tx<'_>| {
        tx.fetch_one("SELECT COUNT(*) AS n FROM things", params![])
            .await?
            .get::<i64>("n")
    };
    assert_eq!(beside.read(count).await.unwrap(), 1);
    let written = beside
        .write("add", async |tx| {
            tx.execute("INSERT INTO things (name) VALUES ('two')", params![])
                .await
        })
        .await;
    assert!(matches!(written, Err(Error::Database(Fault::Closed))));
    assert!(matches!(
        look(DataKind::Sandbox).await.err(),
        Some(OpenError::OtherKind { .. })
    ));
    beside.close().await;
    db.close().await;
}
