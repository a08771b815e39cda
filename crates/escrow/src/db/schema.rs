//! The schema and its changes: numbered, embedded, each applied in one transaction with the note that it was.

use std::path::Path;

use activation_lock::time::Timestamp;
use sqlx::SqliteConnection;

use super::value::params;
use super::{Fault, OpenError, engine};
use crate::meta::{DataKind, Status};

/// One change of the schema.
struct Migration {
    version: i64,
    name: &'static str,
    /// The oldest schema that a program may know and still use a database with this one.
    oldest_compatible: i64,
    sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal, oldest_compatible: $oldest:literal) => {
        Migration {
            version: $version,
            name: $name,
            oldest_compatible: $oldest,
            sql: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
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
];

/// The schema this program knows.
pub(crate) fn program_version() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// Brings the schema up to date; a new database is marked as `kind`. Whether the program may is decided before anything
/// is changed.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    folder: &Path,
    kind: DataKind,
    now: Timestamp,
) -> Result<(), OpenError> {
    let version = may_use(connection, folder, kind).await?.unwrap_or(0);
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| migration.version > version)
    {
        engine::script(connection, "BEGIN IMMEDIATE").await?;
        match apply(connection, migration, kind, now).await {
            Ok(()) => engine::script(connection, "COMMIT").await?,
            Err(fault) => {
                engine::script(connection, "ROLLBACK").await?;
                return Err(OpenError::Migration {
                    name: migration.name,
                    fault,
                });
            }
        }
        tracing::info!(migration = migration.name, "changed the database's schema");
    }
    Ok(())
}

/// Whether this program may use the database as one of this kind. Gives its schema; `None` when it is new and empty.
pub(super) async fn may_use(
    connection: &mut SqliteConnection,
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
    connection: &mut SqliteConnection,
    migration: &Migration,
    kind: DataKind,
    now: Timestamp,
) -> Result<(), Fault> {
    engine::script(connection, migration.sql).await?;
    engine::execute(
        connection,
        "INSERT INTO meta (id, kind, schema_version, oldest_compatible, created_at) VALUES (1, $1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET schema_version = excluded.schema_version, \
         oldest_compatible = excluded.oldest_compatible",
        params![kind.as_str(), migration.version, migration.oldest_compatible, now],
    )
    .await?;
    engine::execute(
        connection,
        "INSERT INTO migrations (version, name, applied_at) VALUES ($1, $2, $3)",
        params![migration.version, migration.name, now],
    )
    .await?;
    Ok(())
}

/// What the database says of itself.
pub(super) async fn status(connection: &mut SqliteConnection) -> Result<Status, OpenError> {
    let empty = || Fault::Engine("it is empty".to_owned());
    Ok(read_meta(connection).await?.ok_or_else(empty)?)
}

/// Nothing when the database is new and empty.
async fn read_meta(connection: &mut SqliteConnection) -> Result<Option<Status>, Fault> {
    let tables = "SELECT COUNT(*) AS tables FROM sqlite_schema";
    let empty = engine::fetch_optional(connection, tables, params![]).await?;
    if empty.is_some_and(|row| row.column::<i64>("tables").is_ok_and(|tables| tables == 0)) {
        return Ok(None);
    }
    let row = engine::fetch_optional(
        connection,
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
    use super::super::Folder;
    use super::super::tests::START;
    use super::*;

    #[tokio::test]
    async fn who_read_the_record_before_it_had_a_permission_of_its_own_still_does() {
        let folder = tempfile::tempdir().unwrap();
        let locked = Folder::lock(folder.path()).unwrap();
        let mut connection = engine::connect_writer(folder.path()).await.unwrap();
        for migration in &MIGRATIONS[..4] {
            apply(&mut connection, migration, DataKind::Sandbox, START)
                .await
                .unwrap();
        }
        engine::script(
            &mut connection,
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
        let rows = engine::fetch_all(&mut connection, sql, params![]).await;
        let rows: Vec<String> = rows
            .unwrap()
            .iter()
            .map(|row| row.column("permissions").unwrap())
            .collect();
        assert_eq!(rows, ["read refresh edit admin audit", "read reveal"]);
        let sql = "SELECT writer, counter FROM audit";
        let row = engine::fetch_optional(&mut connection, sql, params![]).await;
        let row = row.unwrap().unwrap();
        assert_eq!(row.column::<Option<String>>("writer").unwrap(), None);
        engine::close(connection).await;
        drop(locked);
    }
}
