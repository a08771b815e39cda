//! Everything in a database, written into another: row by row, by the columns of one table after the other, with nothing
//! known of what they mean.

use std::fmt::Write as _;

use activation_lock::time::Timestamp;

use super::engine::{Access, Connection};
use super::value::{Kind, Row, Value, params};
use super::{Fault, schema};

/// How many rows are read, and written, at a time.
const PAGE: usize = 200;

/// What a copy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Rows that are in the copy.
    pub rows: u64,
    /// Rows that were compared, one by one, with those they were copied from.
    pub compared: u64,
    /// Rows that there are to copy.
    pub of: u64,
}

/// A table: its columns, and those of its key, which come first in their order.
pub(super) struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
    key: Vec<String>,
}

/// The tables of a database, each after those that it refers to. Both engines have the same; SQLite is asked.
pub(super) async fn tables(sqlite: &mut Connection) -> Result<Vec<Table>, Fault> {
    let rows = sqlite
        .fetch_all(
            "SELECT tables.name AS tbl, columns.name AS col, columns.type AS kind, columns.pk AS pk \
             FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns \
             WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' ORDER BY tbl, columns.cid",
            params![],
        )
        .await?;
    let mut tables: Vec<Table> = Vec::new();
    let mut keys: Vec<Vec<(i64, String)>> = Vec::new();
    for row in rows {
        let (table, column): (String, String) = (row.column("tbl")?, row.column("col")?);
        if tables.last().is_none_or(|last| last.name != table) {
            tables.push(Table {
                name: table,
                columns: Vec::new(),
                key: Vec::new(),
            });
            keys.push(Vec::new());
        }
        let kind = match row.column::<String>("kind")?.as_str() {
            "INTEGER" => Kind::Int,
            "REAL" => Kind::Real,
            "TEXT" => Kind::Text,
            _ => Kind::Blob,
        };
        let place: i64 = row.column("pk")?;
        if let (Some(table), Some(key)) = (tables.last_mut(), keys.last_mut()) {
            table.columns.push((column.clone(), kind));
            if place > 0 {
                key.push((place, column));
            }
        }
    }
    for (table, mut key) in tables.iter_mut().zip(keys) {
        key.sort();
        table.key = key.into_iter().map(|(_, column)| column).collect();
    }
    let references = sqlite
        .fetch_all(
            "SELECT tables.name AS tbl, refers.\"table\" AS other FROM sqlite_schema AS tables, \
             pragma_foreign_key_list(tables.name) AS refers WHERE tables.type = 'table'",
            params![],
        )
        .await?;
    let mut before: Vec<(String, String)> = Vec::new();
    for row in references {
        before.push((row.column("tbl")?, row.column("other")?));
    }
    let mut ordered: Vec<Table> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let is_ready = |table: &Table| {
            before.iter().all(|(of, other)| {
                *of != table.name || other == of || ordered.iter().any(|done| done.name == *other)
            })
        };
        let Some(next) = tables.iter().position(is_ready) else {
            return Err(Fault::Engine("tables refer to each other".to_owned()));
        };
        ordered.push(tables.remove(next));
    }
    Ok(ordered)
}

impl Table {
    fn names(&self) -> String {
        let quoted: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
        quoted.join(", ")
    }

    fn key(&self) -> String {
        let quoted: Vec<String> = self.key.iter().map(|name| quoted(name)).collect();
        quoted.join(", ")
    }

    /// The rows that come after one, in the order of the key.
    async fn page(
        &self,
        from: &mut Connection,
        after: Option<&[Value]>,
    ) -> Result<Vec<Vec<Value>>, Fault> {
        let (names, table, key) = (self.names(), &self.name, self.key());
        let place = match after {
            None => String::new(),
            Some(after) => {
                let marks: Vec<String> = (1..=after.len()).map(|mark| format!("${mark}")).collect();
                format!("WHERE ({key}) > ({})", marks.join(", "))
            }
        };
        let sql = format!("SELECT {names} FROM {table} {place} ORDER BY {key} LIMIT {PAGE}");
        let rows = from
            .fetch_text(sql, after.unwrap_or_default().to_vec())
            .await?;
        Ok(rows.into_iter().map(|row| self.values(row)).collect())
    }

    /// The values of a row; where there is none, none of the column's kind.
    fn values(&self, row: Row) -> Vec<Value> {
        let of_kind = |(value, (_, kind)): (Value, &(String, Kind))| match value {
            Value::Null(_) => Value::Null(*kind),
            value => value,
        };
        row.into_values().zip(&self.columns).map(of_kind).collect()
    }

    fn key_of(&self, values: &[Value]) -> Vec<Value> {
        let place = |key: &String| self.columns.iter().position(|(name, _)| name == key);
        self.key
            .iter()
            .filter_map(|key| place(key).map(|place| values[place].clone()))
            .collect()
    }

    /// The key of the last row that there is.
    async fn last(&self, of: &mut Connection) -> Result<Option<Vec<Value>>, Fault> {
        let (key, table) = (self.key(), &self.name);
        let backwards = self.key.iter().map(|name| format!("{} DESC", quoted(name)));
        let backwards = backwards.collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {key} FROM {table} ORDER BY {backwards} LIMIT 1");
        let row = of.fetch_text(sql, Vec::new()).await?.into_iter().next();
        Ok(row.map(|row| row.into_values().collect()))
    }

    pub(super) async fn count(&self, of: &mut Connection) -> Result<u64, Fault> {
        let sql = format!("SELECT COUNT(*) AS n FROM {}", self.name);
        let row = of.fetch_text(sql, Vec::new()).await?.into_iter().next();
        row.map_or(Ok(0), |row| row.column("n"))
    }

    async fn insert(&self, to: &mut Connection, rows: Vec<Vec<Value>>) -> Result<(), Fault> {
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.name, self.names());
        let width = self.columns.len();
        for row in 0..rows.len() {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..width {
                let comma = if column == 0 { "" } else { ", " };
                let _ = write!(sql, "{comma}${}", row * width + column + 1);
            }
            sql.push(')');
        }
        let values = rows.into_iter().flatten().collect();
        to.execute_text(sql, values).await.map(drop)
    }

    /// Copies the rows that are not there yet, and says how far it is after each page.
    async fn fill(
        &self,
        from: &mut Connection,
        to: &mut Connection,
        copied: &mut Copied,
        progress: &mut impl FnMut(Copied),
    ) -> Result<(), Fault> {
        copied.rows += self.count(to).await?;
        let mut after = self.last(to).await?;
        loop {
            let page = self.page(from, after.as_deref()).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(self.key_of(last));
            copied.rows += page.len() as u64;
            to.begin(Access::Write).await?;
            self.insert(to, page).await?;
            to.script("COMMIT").await?;
            progress(*copied);
        }
    }

    /// Compares each row with the one it was copied from.
    async fn compare(
        &self,
        from: &mut Connection,
        to: &mut Connection,
        copied: &mut Copied,
        progress: &mut impl FnMut(Copied),
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let page = self.page(from, after.as_deref()).await?;
            let same = self.page(to, after.as_deref()).await?;
            if page != same {
                return Err(Fault::Differs {
                    table: self.name.clone(),
                });
            }
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(self.key_of(last));
            copied.compared += page.len() as u64;
            progress(*copied);
        }
    }

    /// Whether the program keeps this table as its own account of the database, so that a copy has its own.
    fn is_own_account(&self) -> bool {
        matches!(self.name.as_str(), "meta" | "migrations")
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// The tables to copy. When there are none yet they are made, with nothing in them.
async fn prepare(
    from: &mut Connection,
    to: &mut Connection,
    now: Timestamp,
) -> Result<Vec<Table>, Fault> {
    to.begin(Access::Write).await?;
    let is_new = to.is_empty().await?;
    if is_new {
        schema::make(to, now).await?;
    }
    // One of them is SQLite, and both have the same tables.
    let mut tables = tables(if from.is_shared() { to } else { from }).await?;
    tables.retain(|table| !table.is_own_account());
    if is_new {
        // The schema itself puts rows into some.
        for table in &tables {
            to.execute_text(format!("DELETE FROM {}", table.name), Vec::new())
                .await?;
        }
    }
    to.script("COMMIT").await?;
    Ok(tables)
}

/// Writes everything of a database into one that is empty, or in which an earlier copy was not finished. At the end each row was
/// compared; only then the copy is a vault. It knows that it is a copy when it is told since when.
pub(super) async fn copy(
    from: &mut Connection,
    to: &mut Connection,
    now: Timestamp,
    copied_at: Option<Timestamp>,
    mut progress: impl FnMut(Copied),
) -> Result<Copied, Fault> {
    let tables = prepare(from, to, now).await?;
    let meta = "SELECT kind, created_at, recovery_public, recovery_opened_at FROM meta";
    let kind = to.fetch_optional(meta, params![]).await?;
    let kind: Option<String> = kind.map(|row| row.column("kind")).transpose()?;
    if kind.is_some_and(|kind| kind != schema::UNFINISHED) {
        return Err(Fault::NotEmpty);
    }
    from.begin(Access::Read).await?;
    let said = from.fetch_optional(meta, params![]).await?;
    let said = said.ok_or(Fault::NoRow { sql: meta })?;
    let mut copied = Copied::default();
    for table in &tables {
        copied.of += table.count(from).await?;
    }
    for table in &tables {
        table.fill(from, to, &mut copied, &mut progress).await?;
    }
    for table in &tables {
        table.compare(from, to, &mut copied, &mut progress).await?;
    }
    to.begin(Access::Write).await?;
    let sql = "UPDATE meta SET kind = $1, created_at = $2, recovery_public = $3, recovery_opened_at = $4, copied_at = $5";
    to.execute(
        sql,
        params![
            said.column::<String>("kind")?,
            said.column::<i64>("created_at")?,
            said.column::<Option<String>>("recovery_public")?,
            said.column::<Option<i64>>("recovery_opened_at")?,
            copied_at,
        ],
    )
    .await?;
    to.script("COMMIT").await?;
    from.script("ROLLBACK").await?;
    Ok(copied)
}
