//! The schema and its changes: numbered, embedded, each applied in one transaction with the note that it was.

use std::path::Path;
use std::time::Duration;

use super::engine::{Access, Connection};
use super::value::params;
use super::{Fault, OpenError, lane};
use crate::meta::{DataKind, Status};
use crate::replicas::{self, ReplicaView};
use activation_lock::time::Timestamp;

/// What whoever changes the schema claims; never a writer, whose claims are random.
const MIGRATING: i64 = 1;

/// The schema in which replicas first say that they live.
const REPLICAS: i64 = 12;

/// What a database is while a copy is being written into it.
pub(super) const UNFINISHED: &str = "unfinished";

/// One change of the schema.
struct Migration {
    version: i64,
    name: &'static str,
    /// The oldest schema that a program may know and still use a database with this one.
    oldest_compatible: i64,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal, oldest_compatible: $oldest:literal) => {
        Migration {
            version: $version,
            name: $name,
            oldest_compatible: $oldest,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }
    };
}

/// All of them, in order. A released one is never changed.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_foundation", oldest_compatible: 1),
    migration!(2, "0002_devices", oldest_compatible: 2),
    migration!(3, "0003_operations", oldest_compatible: 3),
    // An older program would work on locks as if they were unlocks.
    migration!(4, "0004_locks", oldest_compatible: 4),
    // An older program would leave audit rows out of their writer's count.
    migration!(5, "0005_audit_chain", oldest_compatible: 5),
    // An older program would let a token act whose owner is shut out.
    migration!(6, "0006_people", oldest_compatible: 6),
    // An older program would ask nobody.
    migration!(7, "0007_approvals", oldest_compatible: 7),
    // An older program would not see that keys were exchanged, nor that one is destroyed.
    migration!(8, "0008_keys", oldest_compatible: 8),
    // An older program would tell nobody.
    migration!(9, "0009_notices", oldest_compatible: 9),
    // A program of before would ask people for a second factor here whom a provider vouches for, and let nobody more in.
    migration!(10, "0010_single_sign_on", oldest_compatible: 9),
    // A program of before would bring back from the lock journal what a person had removed.
    migration!(11, "0011_purges", oldest_compatible: 11),
    migration!(12, "0012_replicas", oldest_compatible: 11),
    migration!(13, "0013_lookups", oldest_compatible: 11),
    migration!(14, "0014_batches_and_days", oldest_compatible: 11),
];

/// The schema this program knows.
pub(crate) fn program_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// Brings the schema up to date; a new database is marked as `kind`. Whether the program may is decided before anything
/// is changed.
pub(super) async fn migrate(
    connection: &mut Connection,
    folder: &Path,
    kind: DataKind,
    now: Timestamp,
) -> Result<(), OpenError> {
    // Replicas that start together take turns.
    while !connection.claim(MIGRATING).await? {
        lane::pause(Duration::from_millis(100)).await;
    }
    let done = catch_up(connection, folder, kind, now).await;
    connection.release(MIGRATING).await?;
    done
}

/// Makes the tables of an empty database, in the transaction that is under way. It is nobody's yet.
pub(super) async fn make(connection: &mut Connection, now: Timestamp) -> Result<(), Fault> {
    for migration in MIGRATIONS {
        apply(connection, migration, UNFINISHED, now).await?;
    }
    Ok(())
}

async fn catch_up(
    connection: &mut Connection,
    folder: &Path,
    kind: DataKind,
    now: Timestamp,
) -> Result<(), OpenError> {
    let version = may_use(connection, folder, kind).await?.unwrap_or(0);
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| migration.version > version)
    {
        if let Some(host) = older_replica(connection, migration, version, now).await? {
            return Err(OpenError::OlderReplica {
                name: migration.name,
                host,
            });
        }
        connection.begin(Access::Write).await?;
        let applied = apply(connection, migration, kind.as_str(), now).await;
        let end = if applied.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        connection.script(end).await?;
        applied.map_err(|fault| OpenError::Migration {
            name: migration.name,
            fault,
        })?;
        tracing::info!(migration = migration.name, "changed the database's schema");
    }
    Ok(())
}

/// The machine of a replica that lives and could not go on with the schema that a change makes.
async fn older_replica(
    connection: &mut Connection,
    migration: &Migration,
    version: i64,
    now: Timestamp,
) -> Result<Option<String>, Fault> {
    if !connection.is_shared() || version < REPLICAS {
        return Ok(None);
    }
    let sql = "SELECT host FROM replicas WHERE ended_at IS NULL AND seen_at > $1 AND schema_version < $2 LIMIT 1";
    let since = now.minus(replicas::ALIVE);
    let row = connection
        .fetch_optional(sql, params![since, migration.oldest_compatible])
        .await?;
    row.map(|row| row.column("host")).transpose()
}

/// Whether this program may use the database as one of this kind. Gives its schema; `None` when it is new and empty.
pub(super) async fn may_use(
    connection: &mut Connection,
    folder: &Path,
    kind: DataKind,
) -> Result<Option<i64>, OpenError> {
    let found = read_meta(connection)
        .await
        .map_err(|fault| OpenError::NotOurs {
            folder: folder.to_owned(),
            what: fault.to_string(),
        })?;
    let Some(status) = found else {
        return Ok(None);
    };
    if status.kind != kind {
        return Err(OpenError::OtherKind {
            folder: folder.to_owned(),
            found: status.kind,
            wanted: kind,
        });
    }
    if program_version() < status.oldest_compatible {
        return Err(OpenError::ProgramTooOld {
            folder: folder.to_owned(),
            schema: status.schema_version,
            oldest: status.oldest_compatible,
            program: program_version(),
        });
    }
    Ok(Some(status.schema_version))
}

async fn apply(
    connection: &mut Connection,
    migration: &Migration,
    kind: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    let sql = if connection.is_shared() {
        migration.postgres
    } else {
        migration.sqlite
    };
    connection.script(sql).await?;
    connection.execute(
        "INSERT INTO meta (id, kind, schema_version, oldest_compatible, created_at) VALUES (1, $1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET schema_version = excluded.schema_version, \
         oldest_compatible = excluded.oldest_compatible",
        params![kind, migration.version, migration.oldest_compatible, now],
    )
    .await?;
    connection
        .execute(
            "INSERT INTO migrations (version, name, applied_at) VALUES ($1, $2, $3)",
            params![migration.version, migration.name, now],
        )
        .await?;
    Ok(())
}

/// Whether the schema is this program's own, neither older nor newer.
pub(super) async fn is_current(connection: &mut Connection) -> Result<(), Fault> {
    match read_meta(connection).await? {
        Some(status) if status.schema_version == program_version() => Ok(()),
        Some(status) => Err(Fault::OtherSchema {
            found: status.schema_version,
            program: program_version(),
        }),
        None => Err(Fault::Nothing),
    }
}

/// What the database says of itself; nothing when it is new and empty.
pub(super) async fn status(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<Option<Status>, OpenError> {
    let Some(mut status) = read_meta(connection).await? else {
        return Ok(None);
    };
    if status.schema_version >= REPLICAS {
        let now = connection.server_time().await?.unwrap_or(now);
        let rows = connection.fetch_all(replicas::ALL, params![]).await?;
        let views = rows.iter().map(|row| ReplicaView::from_row(row, now));
        status.replicas = views.collect::<Result<_, Fault>>()?;
    }
    Ok(Some(status))
}

/// Nothing when the database is new and empty.
async fn read_meta(connection: &mut Connection) -> Result<Option<Status>, Fault> {
    if connection.is_empty().await? {
        return Ok(None);
    }
    let row = connection.fetch_optional(
        "SELECT kind, schema_version, oldest_compatible, created_at, recovery_public, recovery_opened_at FROM meta",
        params![],
    )
    .await?
    .ok_or_else(|| Fault::Engine("the table meta is empty".to_owned()))?;
    let mut status = Status::from_row(&row)?;
    status.program_version = program_version();
    status.pending = MIGRATIONS
        .iter()
        .filter(|migration| migration.version > status.schema_version)
        .map(|migration| migration.name)
        .collect();
    Ok(Some(status))
}

#[cfg(test)]
mod tests {
    use super::super::engine::Place;
    use super::super::tests::START;
    use super::super::{Database, Folder};
    use super::*;

    #[tokio::test]
    async fn who_read_the_record_before_it_had_a_permission_of_its_own_still_does() {
        let folder = tempfile::tempdir().unwrap();
        let locked = Folder::lock(folder.path(), true).unwrap();
        let place = Place::new(folder.path(), Database::Embedded);
        let mut connection = place.connect(Access::Write).await.unwrap();
        for migration in &MIGRATIONS[..4] {
            apply(&mut connection, migration, "sandbox", START)
                .await
                .unwrap();
        }
        connection.script(
            "INSERT INTO principals (id, kind, name, created_at) VALUES ('p', 'token', 'p', 0);
             INSERT INTO tokens (id, principal, hash, permissions, created_at, created_by) VALUES
             ('a', 'p', 'a', 'read refresh edit admin', 0, 'p'), ('b', 'p', 'b', 'read reveal', 0, 'p');
             INSERT INTO audit VALUES ('o', 'r', 0, 'p', 'a', 's', 'ok', '{}', 'k', 'm');",
        )
        .await
        .unwrap();
        migrate(&mut connection, folder.path(), DataKind::Sandbox, START)
            .await
            .unwrap();
        let sql = "SELECT permissions FROM tokens ORDER BY id";
        let rows = connection.fetch_all(sql, params![]).await;
        let rows: Vec<String> = rows
            .unwrap()
            .iter()
            .map(|row| row.column("permissions").unwrap())
            .collect();
        assert_eq!(rows, ["read refresh edit admin audit", "read reveal"]);
        let sql = "SELECT writer, counter FROM audit";
        let row = connection.fetch_optional(sql, params![]).await;
        let row = row.unwrap().unwrap();
        assert_eq!(row.column::<Option<String>>("writer").unwrap(), None);
        connection.close().await;
        drop(locked);
    }

    #[tokio::test]
    async fn r22_an_event_that_was_known_to_an_earlier_program_still_is() {
        let folder = tempfile::tempdir().unwrap();
        let locked = Folder::lock(folder.path(), true).unwrap();
        let place = Place::new(folder.path(), Database::Embedded);
        let mut connection = place.connect(Access::Write).await.unwrap();
        for migration in &MIGRATIONS[..12] {
            apply(&mut connection, migration, "sandbox", START)
                .await
                .unwrap();
        }
        let (id, digest) = ("01a21b8b-6e01-7f11-89fd-523d007a688f", "ab".repeat(32));
        let sql = "INSERT INTO received_events (organisation, connection, event_at, digest, received_at) \
             VALUES ('o', $1, $2, $3, 7)";
        let row = params![id, START, digest.as_str()];
        connection.execute(sql, row).await.unwrap();
        migrate(&mut connection, folder.path(), DataKind::Sandbox, START)
            .await
            .unwrap();
        let sql = "SELECT mark, received_at FROM received_marks";
        let row = connection.fetch_optional(sql, params![]).await;
        let row = row.unwrap().unwrap();
        let mark = crate::record::mark_of(id, START, &[0xab; 32]);
        assert_eq!(row.column::<String>("mark").unwrap(), mark);
        assert_eq!(row.column::<i64>("received_at").unwrap(), 7);
        connection.close().await;
        drop(locked);
    }
}
