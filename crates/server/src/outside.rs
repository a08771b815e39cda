//! Where the audit record goes outside: its checkpoints, at least once a minute, and its rows as they are sealed.
//!
//! A checkpoint proves something only where nobody who edits the database can edit it too. None of these places stops the
//! service by failing: that is logged, counted, and seen by `doctor`.

mod file;
mod syslog;

use std::fmt;
use std::path::PathBuf;

use apple::transport::Endpoint;
use escrow::audit::{AuditRow, Checkpoint};

pub use self::syslog::{Syslog, SyslogError};
use crate::App;

/// Where the record goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// A file that gets a line a checkpoint.
    pub checkpoint_file: Option<PathBuf>,
    /// An address that each checkpoint is posted to.
    pub checkpoint_webhook: Option<Endpoint>,
    /// A syslog that gets each checkpoint.
    pub syslog: Option<Syslog>,
    /// A file that gets a line a row.
    pub stream_file: Option<PathBuf>,
    /// Whether the syslog gets the rows too.
    pub stream_syslog: bool,
}

/// One place outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlet {
    CheckpointFile,
    CheckpointWebhook,
    Syslog,
    StreamFile,
    StreamSyslog,
}

impl Outlet {
    /// The name under which the vault knows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CheckpointFile => "checkpoint file",
            Self::CheckpointWebhook => "checkpoint webhook",
            Self::Syslog => "syslog",
            Self::StreamFile => "stream file",
            Self::StreamSyslog => "stream syslog",
        }
    }
}

impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outside {
    /// The places that get checkpoints.
    pub(crate) fn of_checkpoints(&self) -> Vec<Outlet> {
        let places = [
            (Outlet::CheckpointFile, self.checkpoint_file.is_some()),
            (Outlet::CheckpointWebhook, self.checkpoint_webhook.is_some()),
            (Outlet::Syslog, self.syslog.is_some()),
        ];
        given(&places)
    }

    /// The places that get rows.
    pub(crate) fn of_rows(&self) -> Vec<Outlet> {
        let places = [
            (Outlet::StreamFile, self.stream_file.is_some()),
            (
                Outlet::StreamSyslog,
                self.stream_syslog && self.syslog.is_some(),
            ),
        ];
        given(&places)
    }

    /// The names of the places that get rows, as the vault knows them.
    #[must_use]
    pub fn streams(&self) -> Vec<&'static str> {
        self.of_rows().into_iter().map(Outlet::as_str).collect()
    }

    /// Gives a checkpoint to a place.
    ///
    /// # Errors
    /// In words, why that did not take it.
    pub(crate) async fn send_checkpoint(
        &self,
        app: &App,
        outlet: Outlet,
        checkpoint: &Checkpoint,
    ) -> Result<(), String> {
        let line = checkpoint.signed.to_line();
        match outlet {
            Outlet::CheckpointFile => {
                file::append(self.checkpoint_file.as_ref(), line + "\n").await
            }
            Outlet::CheckpointWebhook => match &self.checkpoint_webhook {
                Some(address) => app.mdm.post(&address.to_string(), line).await,
                None => Ok(()),
            },
            _ => match &self.syslog {
                Some(syslog) => syslog.send(app.now(), "audit-checkpoint", &[line]).await,
                None => Ok(()),
            },
        }
    }

    /// Gives rows, in the order of the chain, to a place.
    ///
    /// # Errors
    /// In words, why that did not take all of them.
    pub(crate) async fn send_rows(
        &self,
        app: &App,
        outlet: Outlet,
        rows: &[AuditRow],
    ) -> Result<(), String> {
        let lines = rows.iter().map(AuditRow::to_line);
        match (outlet, &self.syslog) {
            (Outlet::StreamFile, _) => {
                let text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
                file::append(self.stream_file.as_ref(), text).await
            }
            (_, Some(syslog)) => {
                let lines: Vec<_> = lines.collect();
                syslog.send(app.now(), "audit-row", &lines).await
            }
            (_, None) => Ok(()),
        }
    }
}

fn given(places: &[(Outlet, bool)]) -> Vec<Outlet> {
    let given = places.iter().filter(|(_, is_given)| *is_given);
    given.map(|(outlet, _)| *outlet).collect()
}
