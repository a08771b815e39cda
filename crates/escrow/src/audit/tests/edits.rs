//! What verification finds: a thousand edits of one record, as somebody with the database file could make them, and not the
//! keys.

use std::path::Path;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rusqlite::Connection;
use seal::Link;

use super::*;

/// Edits made.
const EDITS: usize = 1_000;
/// Rows of version 1; sealed rows in all, rows with a checkpoint outside, and rows in all.
const BEFORE: u64 = 6;
const CHECKPOINTED: [u64; 3] = [10, 20, 30];
const SEALED: u64 = 38;
const ROWS: u64 = 46;

/// A record with everything in it, and the folder it lies in.
struct Record {
    vault: Vault,
    pristine: Vec<u8>,
    outside: Vec<String>,
}

/// Puts a row on record as an earlier program did.
async fn put_of_before(vault: &Vault, index: u64) {
    let escrow = vault.escrow.clone();
    let put = vault.escrow.db.write("of before", async move |tx| {
        let (id, at) = (tx.new_id().to_string(), tx.now());
        let text = entry::canonical(&json!({
            "version": 1, "id": id, "at": at.0, "organisation": "org",
            "actor": {"id": "system:test", "kind": "system", "name": "test"},
            "proof": "program", "address": null, "action": "a", "subject": format!("S{index}"),
            "reason": null, "result": "ok", "details": {},
        }));
        let mac = escrow.keyring().mac(&text);
        tx.execute(
            "INSERT INTO audit (organisation, id, at, actor, action, subject, result, text, mac_key, mac) \
             VALUES ('org', $1, $2, 'system:test', 'a', $3, 'ok', $4, $5, $6)",
            params![id, at, format!("S{index}"), text, mac.key_id().to_string(), mac.hex()],
        )
        .await?;
        Ok(())
    });
    put.await.unwrap();
}

fn connect(folder: &Path) -> Connection {
    let beside = Connection::open(folder.join("lockwarden.db")).unwrap();
    beside
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON")
        .unwrap();
    beside
}

/// The rows of a query, as `row` reads them.
fn rows<T>(
    beside: &Connection,
    sql: &str,
    row: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut statement = beside.prepare(sql).unwrap();
    let rows = statement.query_map([], row).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// Drops the triggers and indexes that refuse what an attacker wants to do.
fn nothing_in_the_way(beside: Connection) {
    let sql = "SELECT 'DROP ' || type || ' ' || name AS sql FROM sqlite_schema \
         WHERE name LIKE 'audit%' AND (type = 'trigger' OR (type = 'index' AND sql IS NOT NULL))";
    for sql in rows(&beside, sql, |row| row.get::<_, String>("sql")) {
        beside.execute_batch(&sql).unwrap();
    }
    beside.close().unwrap();
}

impl Record {
    async fn new() -> Self {
        // Its file is copied and edited as such.
        let folder = tempfile::tempdir().unwrap();
        let vault = vault_in(folder, Database::Embedded).await;
        let mut outside = Vec::new();
        for index in 1..=ROWS {
            vault.clock.advance(Duration::from_secs(1));
            let organisation = OrganisationId::new(["org", "other", "*"][index as usize % 3]);
            match index <= BEFORE {
                true => put_of_before(&vault, index).await,
                false => {
                    let subject = format!("S{index}");
                    vault.put_in(&organisation, "a", &subject).await.unwrap();
                }
            }
            if CHECKPOINTED.contains(&index) || index == SEALED {
                vault.seal().await;
            }
            if CHECKPOINTED.contains(&index) {
                outside.push(vault.checkpoint().await);
            }
        }
        vault.escrow.close().await;
        nothing_in_the_way(connect(vault.folder.path()));
        let pristine = std::fs::read(vault.folder.path().join("lockwarden.db")).unwrap();
        Self {
            vault,
            pristine,
            outside,
        }
    }

    /// The attacker's connection to the record as it was written.
    fn attack(&self) -> Connection {
        let folder = self.vault.folder.path();
        for left in ["lockwarden.db-wal", "lockwarden.db-shm"] {
            let _ = std::fs::remove_file(folder.join(left));
        }
        std::fs::write(folder.join("lockwarden.db"), &self.pristine).unwrap();
        connect(folder)
    }

    /// What `audit verify` says of it now.
    async fn verify(&self, outside: &[String]) -> Result<std::result::Result<Verified, Bad>> {
        let opening = Opening {
            database: Database::Embedded,
            ..opening(&self.vault.folder, &self.vault.clock, 3)
        };
        let escrow = Escrow::look(opening).await.unwrap();
        let found = verify(&escrow, outside).await;
        escrow.close().await;
        found
    }
}

/// Makes the edits, and tells what it did.
struct Attacker {
    random: ChaCha20Rng,
    beside: Connection,
    done: Vec<String>,
}

impl Attacker {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[usize::try_from(self.below(among.len() as u64)).unwrap()]
    }

    fn run(&mut self, sql: String) -> u64 {
        let before = self.beside.total_changes();
        self.beside.execute_batch(&sql).unwrap();
        self.done.push(sql);
        self.beside.total_changes() - before
    }

    fn text(&mut self, sql: String) -> String {
        self.beside.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// A condition that one row of the record fits.
    fn one(&mut self) -> String {
        let subject = 1 + self.below(ROWS);
        format!("subject = 'S{subject}'")
    }

    /// A text with one character of it changed.
    fn flip(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        let at = usize::try_from(self.below(characters.len() as u64)).unwrap();
        let other = match characters[at] {
            '0' => '1',
            'a' => 'b',
            '"' => ' ',
            _ => '0',
        };
        characters[at] = other;
        characters.into_iter().collect()
    }

    fn flip_column(&mut self, table: &str, column: &str, one: &str) {
        let text = self.text(format!("SELECT {column} FROM {table} WHERE {one}"));
        let flipped = self.flip(&text).replace('\'', "''");
        let sql = format!("UPDATE {table} SET {column} = '{flipped}' WHERE {one}");
        self.run(sql);
    }

    /// Changes one column of one row.
    fn change(&mut self) {
        let one = self.one();
        let columns = [
            "organisation",
            "id",
            "actor",
            "action",
            "subject",
            "result",
            "text",
            "text",
            "text",
            "mac",
            "mac",
            "mac_key",
            "at",
            "writer",
            "counter",
        ];
        let column = self.pick(&columns);
        let by = 1 + self.below(3);
        let sql = match column {
            "at" => format!("UPDATE audit SET at = at + {by} WHERE {one}"),
            "counter" => {
                format!("UPDATE audit SET counter = coalesce(counter, 0) + {by} WHERE {one}")
            }
            "writer" => {
                format!("UPDATE audit SET writer = coalesce(writer, '') || 'x' WHERE {one}")
            }
            column => return self.flip_column("audit", column, &one),
        };
        self.run(sql);
    }

    fn delete(&mut self) {
        let one = self.one();
        if self.below(2) == 0 {
            let chained =
                "organisation || audit_row IN (SELECT organisation || id FROM audit WHERE";
            self.run(format!("DELETE FROM audit_chain WHERE {chained} {one})"));
        }
        self.run(format!("DELETE FROM audit WHERE {one}"));
    }

    /// Puts in a copy, a forged row, or a row into another organisation.
    fn insert(&mut self) {
        let one = self.one();
        let id = format!("01900000-0000-7000-8000-{:012x}", self.below(1 << 40));
        let forged = self.below(3) == 0;
        let (organisation, id, text) = match self.below(3) {
            0 => ("'else'".to_owned(), "id".to_owned(), "text"),
            1 => ("organisation".to_owned(), format!("'{id}'"), "text"),
            _ => (
                "'org'".to_owned(),
                format!("'{id}'"),
                if forged {
                    "replace(text, 'ok', 'no')"
                } else {
                    "text"
                },
            ),
        };
        let next = self.below(2) == 0;
        let counter = match next {
            true => "(SELECT max(next) FROM audit_writers)",
            false => "counter",
        };
        self.run(format!(
            "INSERT INTO audit SELECT {organisation}, {id}, at, actor, action, subject, result, {text}, mac_key, mac, \
             writer, {counter} FROM audit WHERE {one}"
        ));
        if next {
            self.run("UPDATE audit_writers SET next = next + 1".to_owned());
        }
    }

    /// Swaps what two rows say, or their places.
    fn swap(&mut self) {
        let first = 1 + self.below(ROWS - 1);
        let second = first + 1 + self.below(ROWS - first);
        let (first, second) = (
            format!("subject = 'S{first}'"),
            format!("subject = 'S{second}'"),
        );
        match self.below(3) {
            0 => {
                let columns = "(text, mac_key, mac)";
                self.run(format!(
                    "CREATE TABLE held AS SELECT text, mac_key, mac FROM audit WHERE {first}"
                ));
                self.run(format!(
                    "UPDATE audit SET {columns} = (SELECT text, mac_key, mac FROM audit WHERE {second}) WHERE {first}"
                ));
                self.run(format!(
                    "UPDATE audit SET {columns} = (SELECT text, mac_key, mac FROM held) WHERE {second}"
                ));
                self.run("DROP TABLE held".to_owned());
            }
            1 => {
                let of =
                    |one: &str| format!("(SELECT coalesce(counter, 0) FROM audit WHERE {one})");
                let sum = self.text(format!(
                    "SELECT CAST({} + {} AS TEXT)",
                    of(&first),
                    of(&second)
                ));
                self.run(format!(
                    "UPDATE audit SET counter = {sum} - coalesce(counter, 0) WHERE {first} OR {second}"
                ));
            }
            _ => {
                let first = 1 + self.below(SEALED - 1);
                let second = first + 1 + self.below(SEALED - first);
                self.run(format!(
                    "UPDATE audit_chain SET position = -{first} WHERE position = {first}"
                ));
                self.run(format!(
                    "UPDATE audit_chain SET position = {first} WHERE position = {second}"
                ));
                self.run(format!(
                    "UPDATE audit_chain SET position = {second} WHERE position = -{first}"
                ));
                if self.below(2) == 0 {
                    self.relink();
                }
            }
        }
    }

    /// Links the chain anew, which needs no key.
    fn relink(&mut self) {
        let sql = "SELECT position, text, mac_key, mac FROM audit_chain \
             JOIN audit ON audit.organisation = audit_chain.organisation AND audit.id = audit_row ORDER BY position";
        let rows: Vec<(i64, String, String, String)> = rows(&self.beside, sql, |row| {
            Ok((
                row.get("position")?,
                row.get("text")?,
                row.get("mac_key")?,
                row.get("mac")?,
            ))
        });
        let (mut link, mut last) = (Link::NONE, 0);
        for (place, text, key, mac) in rows {
            last = place;
            let position = u64::try_from(last).unwrap();
            link = link.next(position, &text, &key, &mac);
            let sql = format!(
                "UPDATE audit_chain SET link = '{}' WHERE position = {last}",
                link.hex()
            );
            self.beside.execute_batch(&sql).unwrap();
        }
        let link = link.hex();
        self.run(format!(
            "UPDATE audit_sealer SET position = {last}, link = '{link}'"
        ));
    }

    /// Takes a row out of the chain's middle, and makes everything else fit as far as that goes without a key.
    fn take_out(&mut self) {
        let place = 1 + self.below(SEALED);
        self.run(format!(
            "DELETE FROM audit WHERE organisation || id = \
             (SELECT organisation || audit_row FROM audit_chain WHERE position = {place})"
        ));
        self.run(format!("DELETE FROM audit_chain WHERE position = {place}"));
        self.run(format!(
            "UPDATE audit_chain SET position = -position WHERE position > {place}"
        ));
        self.run("UPDATE audit_chain SET position = -position - 1 WHERE position < 0".to_owned());
        self.run("UPDATE audit_chain SET counter = position WHERE writer = ''".to_owned());
        self.run(format!(
            "DELETE FROM audit_checkpoints WHERE position >= {place}"
        ));
        self.run(
            "UPDATE audit_sealer SET checkpoints = (SELECT count(*) FROM audit_checkpoints)"
                .to_owned(),
        );
        self.relink();
    }

    /// Cuts off the end from a position on, so that nothing in the vault shows it.
    fn cut(&mut self, keep: u64) {
        self.run(format!(
            "DELETE FROM audit WHERE organisation || id NOT IN \
             (SELECT organisation || audit_row FROM audit_chain WHERE position <= {keep})"
        ));
        self.run(format!("DELETE FROM audit_chain WHERE position > {keep}"));
        self.run(format!(
            "DELETE FROM audit_checkpoints WHERE position > {keep}"
        ));
        self.run(
            "UPDATE audit_sealer SET position = (SELECT max(position) FROM audit_chain), \
             link = (SELECT link FROM audit_chain ORDER BY position DESC LIMIT 1), \
             checkpoints = (SELECT count(*) FROM audit_checkpoints)"
                .to_owned(),
        );
        self.run(
            "UPDATE audit_writers SET next = 1 + coalesce((SELECT max(counter) FROM audit WHERE writer = audit_writers.id), 0)"
                .to_owned(),
        );
    }

    fn truncate(&mut self) {
        if self.below(2) == 0 {
            let keep = ROWS - 1 - self.below(ROWS - SEALED);
            self.run(format!(
                "DELETE FROM audit WHERE CAST(substr(subject, 2) AS INTEGER) > {keep}"
            ));
        } else {
            let keep = 1 + self.below(CHECKPOINTED[2] - 1);
            self.cut(keep);
        }
    }

    /// Edits the chain, the counts, or the checkpoints.
    fn around(&mut self) {
        let place = 1 + self.below(SEALED);
        let number = 1 + self.below(CHECKPOINTED.len() as u64);
        let at = format!("position = {place}");
        let one = format!("number = {number}");
        let by = 1 + self.below(5);
        let sql = match self.below(18) {
            0 => return self.flip_column("audit_chain", "link", &at),
            1 => return self.flip_column("audit_chain", "audit_row", &at),
            2 => format!("UPDATE audit_chain SET organisation = organisation || 'x' WHERE {at}"),
            3 => format!("UPDATE audit_chain SET writer = writer || 'x' WHERE {at}"),
            4 => format!("UPDATE audit_chain SET counter = counter + {by} WHERE {at}"),
            5 => format!(
                "UPDATE audit_chain SET position = {} WHERE {at}",
                SEALED + by
            ),
            6 => format!("DELETE FROM audit_chain WHERE position >= {place}"),
            7 => format!(
                "INSERT INTO audit_chain SELECT {}, organisation, audit_row, writer, counter, link FROM audit_chain WHERE {at}",
                SEALED + by
            ),
            8 => format!("UPDATE audit_writers SET next = next + {by}"),
            9 => format!("UPDATE audit_writers SET next = next - {by}"),
            10 => "DELETE FROM audit_writers".to_owned(),
            11 => format!(
                "INSERT INTO audit_writers (id, next) VALUES ('x', {})",
                by + 1
            ),
            12 => {
                let column = self.pick(&["position", "checkpoints"]);
                format!("UPDATE audit_sealer SET {column} = {column} - 1")
            }
            13 => return self.flip_column("audit_sealer", "link", "id = 1"),
            14 => {
                let column = self.pick(&["text", "signature"]);
                return self.flip_column("audit_checkpoints", column, &one);
            }
            15 => {
                let column = self.pick(&["number", "position", "at"]);
                format!(
                    "UPDATE audit_checkpoints SET {column} = {column} + {} WHERE {one}",
                    by + 3
                )
            }
            16 => format!("DELETE FROM audit_checkpoints WHERE {one}"),
            _ => format!(
                "INSERT INTO audit_checkpoints SELECT {}, position, at, text, signature FROM audit_checkpoints WHERE {one}",
                3 + by
            ),
        };
        self.run(sql);
    }

    /// A horizon that nobody signed, to hide what is behind it.
    fn horizon(&mut self) {
        let number = 1 + self.below(CHECKPOINTED.len() as u64);
        self.run(format!(
            "INSERT INTO audit_horizons SELECT position, at, text, signature FROM audit_checkpoints WHERE number = {number}"
        ));
        self.run(
            "DELETE FROM audit_chain WHERE position <= (SELECT max(position) FROM audit_horizons)"
                .to_owned(),
        );
    }

    fn edit(&mut self) {
        match self.below(20) {
            0..5 => self.change(),
            5..7 => self.delete(),
            7..10 => self.insert(),
            10..12 => self.swap(),
            12..14 => self.truncate(),
            14 => self.take_out(),
            15 => self.horizon(),
            _ => self.around(),
        }
    }
}

#[tokio::test]
async fn a_thousand_random_edits_are_all_found() {
    let record = Record::new().await;
    record.attack().close().unwrap();
    let whole = record.verify(&record.outside).await.unwrap().unwrap();
    assert_eq!(
        (whole.rows, whole.position, whole.unsealed, whole.compared),
        (ROWS, SEALED, ROWS - SEALED, 3)
    );
    let mut random = ChaCha20Rng::seed_from_u64(0x10c4);
    for index in 0..EDITS {
        let mut attacker = Attacker {
            random,
            beside: record.attack(),
            done: Vec::new(),
        };
        attacker.beside.execute_batch("BEGIN").unwrap();
        attacker.edit();
        attacker.beside.execute_batch("COMMIT").unwrap();
        let Attacker {
            random: left,
            beside,
            done,
        } = attacker;
        random = left;
        beside.close().unwrap();
        match record.verify(&record.outside).await {
            Ok(Ok(_)) => panic!("edit {index} was not found: {done:#?}"),
            Ok(Err(bad)) => assert!(!bad.what.is_empty()),
            // A column that no program of ours wrote so.
            Err(Error::Corrupt(_) | Error::Database(crate::Fault::Column { .. })) => {}
            Err(error) => panic!("edit {index}: {error}: {done:#?}"),
        }
    }
}

#[tokio::test]
async fn an_end_that_was_cut_off_after_the_outside_checkpoint_is_said_to_be_unproven() {
    let record = Record::new().await;
    let attack = async |keep| {
        let mut attacker = Attacker {
            random: ChaCha20Rng::seed_from_u64(1),
            beside: record.attack(),
            done: Vec::new(),
        };
        attacker.cut(keep);
        attacker.beside.close().unwrap();
        record.verify(&record.outside).await.unwrap()
    };
    let last = CHECKPOINTED[2];
    // What is left of the end is as it was written, and nothing shows that there was more.
    let verified = attack(last + 3).await.unwrap();
    assert_eq!((verified.unproven, verified.is_proven()), (3, false));
    assert_eq!(verified.proven.unwrap().position, last);
    // All of it is gone: the record is proven up to the checkpoint, and no word is said of what came after.
    let verified = attack(last).await.unwrap();
    assert_eq!((verified.unproven, verified.is_proven()), (0, true));
    // One more, and the checkpoint tells.
    let bad = attack(last - 1).await.unwrap_err();
    assert_eq!(bad.place, Place::Outside(3));
    // Without one, nothing does.
    let verified = record.verify(&[]).await.unwrap().unwrap();
    assert_eq!((verified.proven, verified.is_proven()), (None, false));
}

#[tokio::test]
async fn the_first_bad_row_is_named() {
    let record = Record::new().await;
    let named = async |sql: &'static str| {
        let beside = record.attack();
        beside.execute_batch(sql).unwrap();
        beside.close().unwrap();
        record.verify(&record.outside).await.unwrap().unwrap_err()
    };
    let changed = named("UPDATE audit SET actor = 'x' WHERE subject IN ('S12', 'S20')").await;
    assert_eq!(changed.place, Place::Position(12));
    assert!(changed.id.is_some() && changed.organisation.as_deref() == Some("org"));
    let gone = named("DELETE FROM audit WHERE subject = 'S44'").await;
    let Place::Counter { counter, .. } = gone.place else {
        panic!("{gone}");
    };
    assert_eq!(counter, 44 - BEFORE);
    let put_in = named(
        "INSERT INTO audit SELECT 'org', 'x', at, actor, action, subject, result, text, mac_key, mac, writer, counter \
         FROM audit WHERE subject = 'S12'",
    )
    .await;
    assert_eq!(
        (put_in.place, put_in.id.as_deref()),
        (Place::Stray, Some("x"))
    );
}

#[tokio::test]
async fn a_checkpoint_of_another_vault_or_with_a_changed_word_proves_nothing() {
    let record = Record::new().await;
    record.attack().close().unwrap();
    let line = record.outside[1].clone();
    for bad in [
        line.replace("\"position\":20", "\"position\":19"),
        line.replace("\"kind\":\"checkpoint\"", "\"kind\":\"horizon\""),
        "{}".to_owned(),
        "not JSON".to_owned(),
    ] {
        let lines = [record.outside[0].clone(), bad.clone()];
        let found = record.verify(&lines).await.unwrap().unwrap_err();
        assert_eq!(found.place, Place::Outside(2), "{bad}");
    }
}
