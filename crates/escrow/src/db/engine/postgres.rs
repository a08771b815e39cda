//! PostgreSQL: how connections are made and statements run. Knows sqlx's types for it, and nobody else does.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgListener, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Column as _, ConnectOptions as _, PgConnection, Postgres, Row as _, SqlSafeStr};
use sqlx::{TypeInfo as _, ValueRef as _};

use super::super::address::PostgresAddress;
use super::super::value::{Kind, Row, Value};
use super::{Access, Trouble};

/// How long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a statement may take, longer than the server lets it: past that the connection is dead.
pub(super) const ANSWER: Duration = Duration::from_secs(45);

/// A connection to the first server that takes writes: what was committed there is not on a standby yet, for reads either.
pub(super) async fn connect(address: &PostgresAddress) -> Result<PgConnection, sqlx::Error> {
    let mut last = sqlx::Error::Configuration("no server is named".into());
    for server in address.servers() {
        let connected = tokio::time::timeout(CONNECT, async {
            let mut connection = server.connect().await?;
            let recovers = fetch(
                &mut connection,
                "SELECT pg_is_in_recovery() AS recovers",
                Vec::new(),
                1,
            )
            .await?;
            let is_standby = recovers[0].first() == Some(&Value::Int(1));
            Ok::<_, sqlx::Error>((connection, is_standby))
        });
        match connected.await {
            Ok(Ok((connection, false))) => return Ok(connection),
            Ok(Ok((_, true))) => {
                last = sqlx::Error::Configuration(
                    format!("{} is a standby, which takes no writes", server.get_host()).into(),
                );
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = sqlx::Error::PoolTimedOut,
        }
    }
    Err(last)
}

/// What begins a transaction.
pub(super) fn begin(access: Access) -> &'static str {
    match access {
        Access::Write => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    }
}

macro_rules! watched {
    ($begin:literal) => {
        concat!(
            $begin,
            "; SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now, \
             (SELECT COUNT(*) || ' ' || COALESCE(MAX(created_at), 0) || ' ' || COALESCE(MAX(destroyed_at), 0) \
             FROM data_keys) AS keys"
        )
    };
}

/// What begins a transaction, and asks for the server's time in milliseconds and the state of the data keys.
pub(super) fn begin_watched(access: Access) -> &'static str {
    match access {
        Access::Write => watched!("BEGIN ISOLATION LEVEL SERIALIZABLE"),
        Access::Read => watched!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    }
}

/// A connection of its own that hears what is told.
pub(super) type Listener = PgListener;

/// Listens at the first server that lets us, which no standby does.
pub(super) async fn listen(address: &PostgresAddress) -> Result<Listener, sqlx::Error> {
    let mut last = sqlx::Error::Configuration("no server is named".into());
    for server in address.servers() {
        let options = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .max_lifetime(None)
            .idle_timeout(None);
        let pool = options.connect_lazy_with(server.clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.ignore_pool_close_event(true);
            listener.listen("lockwarden").await?;
            Ok(listener)
        };
        match listening.await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The next text; nothing when the connection was lost.
pub(super) async fn next(listener: &mut Listener) -> Option<String> {
    let heard = listener.try_recv().await.ok().flatten()?;
    Some(heard.payload().to_owned())
}

/// What an error says of the connection and the transaction; nothing when the statement alone is to blame.
pub(super) fn trouble(error: &sqlx::Error) -> Option<Trouble> {
    match error {
        sqlx::Error::Database(inner) => match inner.code().as_deref() {
            // Two transactions cannot both have been first, or wait for each other.
            Some("40001" | "40P01") => Some(Trouble::Conflict),
            // A server that stops, starts, no longer is the primary, has ended an idle session, or has no place left.
            Some("57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03" | "53300") => {
                Some(Trouble::Lost)
            }
            Some(code) if code.starts_with("08") => Some(Trouble::Lost),
            _ => None,
        },
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_) => None,
        _ => Some(Trouble::Lost),
    }
}

pub(super) async fn execute(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
    params: Vec<Value>,
) -> Result<u64, sqlx::Error> {
    Ok(query(sql, params)
        .execute(connection)
        .await?
        .rows_affected())
}

/// How many rows one statement inserts at most.
const TOGETHER: usize = 64;

/// An `INSERT` with one list of `VALUES`, for as many of `rows` as it takes at once: a power of two, so that a connection prepares
/// few texts. A parameter keeps its place within its row.
pub(super) fn together(sql: &str, rows: usize) -> (usize, String) {
    let together = (1 << rows.max(1).ilog2()).min(TOGETHER);
    let begin = sql.find("VALUES (").map_or(sql.len(), |at| at + 7);
    let mut depth = 0;
    let closes = |&(_, letter): &(usize, char)| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        depth == 0
    };
    let end = sql[begin..].char_indices().find(closes);
    let end = end.map_or(sql.len(), |(at, _)| begin + at + 1);
    // What stands between the dollars begins with the number of a parameter.
    let mut parts = sql[begin..end].split('$');
    let first = parts.next().unwrap_or_default();
    let parts: Vec<(usize, &str)> = parts
        .map(|part| {
            let digits = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            (part[..digits].parse().unwrap_or(0), &part[digits..])
        })
        .collect();
    let width = parts.iter().map(|(number, _)| *number).max().unwrap_or(0);
    let mut text = sql[..begin].to_owned();
    for row in 0..together {
        text.push_str(if row == 0 { first } else { ", (" });
        for (number, rest) in &parts {
            let _ = write!(text, "${}{rest}", row * width + number);
        }
    }
    text.push_str(&sql[end..]);
    (together, text)
}

/// The rows, at most so many of them.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
    params: Vec<Value>,
    most: usize,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = query(sql, params).fetch_all(connection).await?;
    rows_of(&rows, most)
}

/// The rows of a script of statements without parameters.
pub(super) async fn script(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
    rows_of(&rows, usize::MAX)
}

/// At most so many of them.
fn rows_of(rows: &[PgRow], most: usize) -> Result<Vec<Row>, sqlx::Error> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let names = first
        .columns()
        .iter()
        .map(|column| column.name().to_owned());
    let columns: Arc<[String]> = names.collect();
    let row = |row: &PgRow| {
        let values = (0..columns.len()).map(|index| value(row, index));
        Ok(Row::new(columns.clone(), values.collect::<Result<_, _>>()?))
    };
    rows.iter().take(most).map(row).collect()
}

/// Values are told by their kind, so that a statement is prepared for the same types whether there are values or not.
fn query(sql: impl SqlSafeStr, params: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    params
        .into_iter()
        .fold(sqlx::query(sql), |query, value| match value {
            Value::Null(Kind::Int) => query.bind(None::<i64>),
            Value::Null(Kind::Real) => query.bind(None::<f64>),
            Value::Null(Kind::Text) => query.bind(None::<String>),
            Value::Null(Kind::Blob) => query.bind(None::<Vec<u8>>),
            Value::Int(number) => query.bind(number),
            Value::Real(number) => query.bind(number),
            // Text has no place for a NUL here.
            Value::Text(text) if text.contains('\0') => query.bind(text.replace('\0', "\u{fffd}")),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        })
}

fn value(row: &PgRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    let kind = raw.type_info();
    let kind = kind.name();
    if raw.is_null() {
        return Ok(Value::Null(match kind {
            "BYTEA" => Kind::Blob,
            "TEXT" => Kind::Text,
            "FLOAT8" => Kind::Real,
            _ => Kind::Int,
        }));
    }
    Ok(match kind {
        "INT8" => Value::Int(row.try_get_unchecked(index)?),
        "INT4" => Value::Int(row.try_get_unchecked::<i32, _>(index)?.into()),
        "BOOL" => Value::Int(row.try_get_unchecked::<bool, _>(index)?.into()),
        "FLOAT8" => Value::Real(row.try_get_unchecked(index)?),
        "TEXT" | "VARCHAR" | "NAME" => Value::Text(row.try_get_unchecked(index)?),
        "BYTEA" => Value::Blob(row.try_get_unchecked(index)?),
        other => {
            let what = format!("a column of type {other}");
            return Err(sqlx::Error::Decode(what.into()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_of_many_rows_repeats_its_list() {
        let sql =
            "INSERT INTO t (a, b, c) VALUES ($1, COALESCE($2, ''), $1) ON CONFLICT (a) DO NOTHING";
        assert_eq!(together(sql, 1), (1, sql.to_owned()));
        let (rows, text) = together(sql, 3);
        assert_eq!(rows, 2);
        assert_eq!(
            text,
            "INSERT INTO t (a, b, c) VALUES ($1, COALESCE($2, ''), $1), ($3, COALESCE($4, ''), $3) ON CONFLICT (a) DO NOTHING"
        );
        assert_eq!(together(sql, 1_000).0, TOGETHER);
    }
}
