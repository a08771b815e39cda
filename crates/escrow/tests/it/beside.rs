//! The database as somebody beside the vault sees and changes it, on whichever engine it is.

use std::path::Path;
use std::time::Duration;

use escrow::Database;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::support::{Vault, database};

/// A connection beside the vault.
pub(crate) enum Beside {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

impl Beside {
    /// To the database of a folder.
    pub(crate) async fn of(folder: &Path) -> Self {
        match database(folder) {
            Database::Embedded => Self::of_file(folder).await,
            Database::Postgres(_) => Self::of_server(&sim::test_database(folder).unwrap()).await,
        }
    }

    /// To the database in a folder.
    pub(crate) async fn of_file(folder: &Path) -> Self {
        let file = folder.join("lockwarden.db");
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        Self::Sqlite(connection)
    }

    /// To the database at an address.
    pub(crate) async fn of_server(address: &str) -> Self {
        Self::Postgres(PgConnection::connect(address).await.unwrap())
    }

    /// Runs statements; gives the number of rows they changed.
    pub(crate) async fn run(&mut self, sql: &str) -> u64 {
        match self {
            Self::Sqlite(connection) => {
                let before = connection.total_changes();
                connection.execute_batch(sql).unwrap();
                connection.total_changes() - before
            }
            Self::Postgres(connection) => {
                // Bytes are written in another way there.
                let sql = sqlx::raw_sql(AssertSqlSafe(sql.replace("= x'", "= '\\x")));
                sql.execute(connection).await.unwrap().rows_affected()
            }
        }
    }

    /// The texts of a query's only column.
    pub(crate) async fn texts(&mut self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get(0)).unwrap();
                rows.collect::<Result<_, _>>().unwrap()
            }
            Self::Postgres(connection) => {
                let sql = AssertSqlSafe(sql.to_owned());
                let rows = sqlx::query(sql).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// Has each statement of a kind (`INSERT`, `UPDATE`) on a table fail, as on a disk that is full.
    pub(crate) async fn refuse(&mut self, kind: &str, table: &str) {
        let then = match self {
            Self::Sqlite(_) => "BEGIN SELECT RAISE(ABORT, 'no room'); END",
            Self::Postgres(_) => "FOR EACH ROW EXECUTE FUNCTION refuse('no room')",
        };
        self.run(&format!(
            "CREATE TRIGGER full_{kind} BEFORE {kind} ON {table} {then}"
        ))
        .await;
    }

    /// No longer.
    pub(crate) async fn allow(&mut self, kind: &str, table: &str) {
        let of = match self {
            Self::Sqlite(_) => String::new(),
            Self::Postgres(_) => format!("ON {table}"),
        };
        self.run(&format!("DROP TRIGGER full_{kind} {of}")).await;
    }

    /// Every column, as `table.column`, in order of the tables.
    pub(crate) async fn columns(&mut self) -> Vec<String> {
        self.texts(match self {
            Self::Sqlite(_) => {
                "SELECT tables.name || '.' || columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS \
                 columns WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' ORDER BY tables.name"
            }
            Self::Postgres(_) => {
                "SELECT table_name || '.' || column_name FROM information_schema.columns \
                 WHERE table_schema = current_schema() ORDER BY table_name"
            }
        })
        .await
    }
}

/// The text of each audit row, oldest first.
pub(crate) async fn audit_texts(vault: &Vault) -> Vec<String> {
    let mut beside = Beside::of(vault.escrow.folder()).await;
    beside.texts("SELECT text FROM audit ORDER BY id").await
}

/// Changes one row behind the vault's back, as somebody with the database could. `$1` is its identifier.
pub(crate) async fn tamper(vault: &Vault, sql: &'static str, id: &str) {
    let mut beside = Beside::of(vault.escrow.folder()).await;
    let changed = beside.run(&sql.replace("$1", &format!("'{id}'"))).await;
    assert_eq!(changed, 1);
}

/// Overwrites the sealed text of a code, as damage would.
pub(crate) async fn damage(vault: &Vault, code: &str) {
    let mut beside = Beside::of(vault.escrow.folder()).await;
    let zeros = match beside {
        Beside::Sqlite(_) => "zeroblob(80)",
        Beside::Postgres(_) => "decode(repeat('00', 80), 'hex')",
    };
    let sql = format!("UPDATE codes SET cell = {zeros} WHERE id = '{code}'");
    assert_eq!(beside.run(&sql).await, 1);
}

/// Runs a statement behind the vault's back.
pub(crate) async fn run(vault: &Vault, sql: &str) {
    Beside::of(vault.escrow.folder()).await.run(sql).await;
}
