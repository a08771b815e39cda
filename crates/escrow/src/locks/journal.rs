//! The lock journal: the second place where the code of every lock is, before its call leaves (R4).
//!
//! A text file beside the database, only ever added to, but that lines are sealed anew when keys are
//! exchanged and go when a person has their device removed for ever; one line a call: version, organisation, call, and a cell that holds the
//! rest. Each line is on disk before [`LockJournal::append`] returns. A line that a crash cut off was never followed by a call;
//! the next one starts afresh. It is read at every start: what a database that was rolled back has forgotten is put back
//! ([`super::replay`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use activation_lock::device::SerialNumber;
use seal::{Keyring, Purpose};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::permit::OrganisationId;
use crate::{Escrow, Result};

/// The file's name in the data folder.
const FILE: &str = "lock-journal";
/// The version of a line's shape.
const VERSION: &str = "1";
/// What a line ends with that a crash cut off. No call followed it.
const CUT_OFF: char = '~';
/// The kind of cell.
const CELL: &str = "lock journal";

/// One call that is about to leave.
pub(crate) struct Record {
    pub(crate) organisation: OrganisationId,
    pub(crate) call: String,
    pub(crate) operation: String,
    pub(crate) serial: SerialNumber,
    /// The code's text.
    pub(crate) code: Zeroizing<String>,
}

/// What the cell holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    operation: String,
    serial: SerialNumber,
    code: String,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.code);
    }
}

/// A line that was read.
pub(crate) enum Line {
    /// A call.
    Record(Record),
    /// It does not open: cut off by a crash, damaged, or sealed with a key that is not here.
    Unreadable {
        /// Its number, from 1.
        number: usize,
        /// It is the last one, and was not finished.
        cut_off: bool,
    },
}

/// The journal of a data folder. The file is made with the first line.
pub(crate) struct LockJournal {
    path: PathBuf,
    open: Arc<Mutex<Option<File>>>,
}

impl LockJournal {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
            open: Arc::default(),
        }
    }

    /// Adds a line. When this returns, it is on disk.
    pub(crate) async fn append(&self, escrow: &Escrow, record: &Record) -> io::Result<()> {
        let sealed = Sealed {
            operation: record.operation.clone(),
            serial: record.serial.clone(),
            code: record.code.as_str().to_owned(),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&sealed).map_err(io::Error::other)?);
        let organisation = record.organisation.as_str();
        let cell = escrow.seal_cell(CELL, organisation, &record.call, &plain);
        let cell = data_encoding::BASE64.encode(&cell);
        let line = format!("{VERSION} {organisation} {} {cell}\n", record.call);
        let (path, open) = (self.path.clone(), self.open.clone());
        // A line that is being written is written to its end, also when nobody waits for it any more.
        tokio::task::spawn_blocking(move || {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            let mut file = match open.take() {
                Some(file) => file,
                None => begin(&path)?,
            };
            let end = file.seek(SeekFrom::End(0))?;
            let written = file
                .write_all(line.as_bytes())
                .and_then(|()| file.sync_data());
            if let Err(error) = written {
                // What is half there is taken back, as far as that goes; reading passes over it otherwise.
                let _ = file.set_len(end);
                return Err(error);
            }
            *open = Some(file);
            Ok(())
        })
        .await
        .map_err(io::Error::other)?
    }

    /// How many lines each key sealed.
    pub(crate) fn keys(&self) -> io::Result<Vec<(String, u64)>> {
        let mut counted = std::collections::BTreeMap::<String, u64>::new();
        for line in text(&self.path)?
            .lines()
            .filter(|line| !line.ends_with(CUT_OFF))
        {
            if let Some(id) = cell_of(line).and_then(|cell| Keyring::cell_key(&cell).ok()) {
                *counted.entry(id.to_string()).or_default() += 1;
            }
        }
        Ok(counted.into_iter().collect())
    }

    /// Seals anew what older keys sealed, and gives how many lines that were. A line that does not open stays as it is.
    pub(crate) async fn reseal(&self, escrow: &Escrow) -> io::Result<i64> {
        let escrow = escrow.clone();
        let current = escrow.keyring().key_ids(Purpose::Cells)[0];
        self.rewrite(move |line| {
            let older =
                cell_of(line).filter(|cell| Keyring::cell_key(cell).is_ok_and(|id| id != current));
            let anew = older.and_then(|cell| anew(&escrow, line, &cell));
            anew.map_or(Rewritten::Kept, Rewritten::Anew)
        })
        .await
    }

    /// Takes out the lines of calls that are to be forgotten, and gives how many those were. A line that does not open stays.
    pub(crate) async fn forget(
        &self,
        escrow: &Escrow,
        is_forgotten: impl Fn(&Record) -> bool + Send + 'static,
    ) -> io::Result<i64> {
        let escrow = escrow.clone();
        self.rewrite(move |line| match open_line(&escrow, line) {
            Some(record) if is_forgotten(&record) => Rewritten::Gone,
            _ => Rewritten::Kept,
        })
        .await
    }

    /// Has every line looked at, and gives how many were changed. The file is replaced at once, whole or not at all, and nobody adds a
    /// line meanwhile.
    async fn rewrite(&self, judge: impl Fn(&str) -> Rewritten + Send + 'static) -> io::Result<i64> {
        let (path, open) = (self.path.clone(), self.open.clone());
        tokio::task::spawn_blocking(move || {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            let before = text(&path)?;
            let mut after = String::with_capacity(before.len());
            let mut changed = 0;
            for line in before.lines() {
                match judge(line) {
                    Rewritten::Kept => after.push_str(line),
                    Rewritten::Anew(line) => {
                        changed += 1;
                        after.push_str(&line);
                    }
                    Rewritten::Gone => {
                        changed += 1;
                        continue;
                    }
                }
                after.push('\n');
            }
            if changed > 0 {
                let beside = path.with_extension("new");
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&beside)?;
                file.write_all(after.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&beside, &path)?;
                if let Some(folder) = path.parent() {
                    File::open(folder)?.sync_all()?;
                }
                *open = None;
            }
            Ok(changed)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Every line, oldest first. No file is no line.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub(crate) fn read(&self, escrow: &Escrow) -> io::Result<Vec<Line>> {
        let text = text(&self.path)?;
        let finished = text.ends_with('\n');
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len();
        Ok(lines
            .into_iter()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.ends_with(CUT_OFF))
            .map(|(index, line)| match open_line(escrow, line) {
                Some(record) => Line::Record(record),
                None => Line::Unreadable {
                    number: index + 1,
                    cut_off: index + 1 == last && !finished,
                },
            })
            .collect())
    }
}

/// What becomes of a line.
enum Rewritten {
    Kept,
    Anew(String),
    Gone,
}

/// The whole file; empty where there is none.
fn text(path: &Path) -> io::Result<String> {
    match File::open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn cell_of(line: &str) -> Option<Vec<u8>> {
    let cell = line.split(' ').nth(3)?;
    data_encoding::BASE64.decode(cell.as_bytes()).ok()
}

/// A line with its cell under the current key.
fn anew(escrow: &Escrow, line: &str, cell: &[u8]) -> Option<String> {
    let mut parts = line.split(' ').skip(1);
    let (organisation, call) = (parts.next()?, parts.next()?);
    let plain = escrow.open_cell(CELL, organisation, call, cell).ok()?;
    let cell = escrow.seal_cell(CELL, organisation, call, &plain);
    let cell = data_encoding::BASE64.encode(&cell);
    Some(format!("{VERSION} {organisation} {call} {cell}"))
}

fn open_line(escrow: &Escrow, line: &str) -> Option<Record> {
    let mut parts = line.split(' ');
    let (version, organisation, call, cell) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != VERSION || parts.next().is_some() {
        return None;
    }
    let cell = data_encoding::BASE64.decode(cell.as_bytes()).ok()?;
    let opened: Result<_> = escrow.open_cell(CELL, organisation, call, &cell);
    let sealed: Sealed = serde_json::from_slice(&opened.ok()?).ok()?;
    Some(Record {
        organisation: OrganisationId::new(organisation),
        call: call.to_owned(),
        operation: sealed.operation.clone(),
        serial: sealed.serial.clone(),
        code: Zeroizing::new(sealed.code.clone()),
    })
}

/// Opens the file for adding to; made where it is not there, and its name in the folder on disk. A line that was cut off is
/// closed and marked, so that the next one stands by itself.
fn begin(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // Also where it was there already: a crash may have come between the file and its name.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            writeln!(file, "{CUT_OFF}")?;
        }
    }
    Ok(file)
}
