//! Backups: made, listed, forgotten.

use std::path::PathBuf;

use activation_lock::time::DAY;
use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use escrow::backups::{BackupError, BackupView};
use escrow::permit::{Admin, OrganisationId, Permit};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use utoipa::ToSchema;

use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, name, sentence};
use crate::http::problem::Problem;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// The most days that a backup can be said to be kept.
const LONGEST: u32 = 36_500;

/// A backup on record.
#[derive(Serialize, ToSchema)]
pub(super) struct Backup {
    id: String,
    /// What it is called.
    name: String,
    made_at: Moment,
    /// SHA-256 of the file, hexadecimal; empty while it is being made.
    digest: String,
    /// The data keys that it needs: they are not destroyed before it ends.
    keys: Vec<String>,
    /// Until when it is kept; null is for ever.
    expires_at: Option<Moment>,
    /// When it was said to be gone.
    forgotten_at: Option<Moment>,
}

impl From<BackupView> for Backup {
    fn from(view: BackupView) -> Self {
        Self {
            id: view.id,
            name: view.name,
            made_at: view.made_at.into(),
            digest: view.digest,
            keys: view.data_keys,
            expires_at: view.expires_at.map(Moment),
            forgotten_at: view.forgotten_at.map(Moment),
        }
    }
}

/// A backup to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBackup {
    /// What it is called on record. 1 to 200 characters.
    name: String,
    /// For how many days it is kept, 1 to 36,500; for ever when it is left out.
    #[schema(minimum = 1, maximum = 36500)]
    keep_days: Option<u32>,
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Vault(error) => error.into(),
            error => {
                tracing::error!(%error, "a backup could not be made");
                Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "backup-failed",
                    "The backup could not be made",
                    sentence(&error.to_string()),
                )
                .hint("There must be room for two copies of the database in the server's data folder.")
            }
        }
    }
}

/// Backups are of all organisations.
async fn permit(app: &App, caller: &Caller, subject: &str) -> Result<Permit<Admin>, Problem> {
    let everywhere = OrganisationId::new("*");
    Ok(app
        .escrow
        .authorise(&caller.actor, &everywhere, subject)
        .await?)
}

/// List backups, newest first.
#[utoipa::path(
    get,
    path = "/v1/backups",
    tag = "backups",
    operation_id = "list_backups",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Backup>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Backup>>, Problem> {
    let permit = permit(&app, &caller, "backups").await?;
    let all = app.escrow.backups().list(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter().map(Backup::from).collect(),
    )))
}

/// Make a backup while everything goes on. The answer is the file, encrypted for the running key and the recovery key, and read back
/// before it leaves.
#[utoipa::path(
    post,
    path = "/v1/backups",
    tag = "backups",
    operation_id = "make_backup",
    security(("token" = ["admin"])),
    request_body = NewBackup,
    responses(
        (status = 200, description = "The file.", content_type = "application/octet-stream",
            headers(("lockwarden-backup" = String, description = "Its identifier."), ("lockwarden-digest" = String, description = "SHA-256 of the file, hexadecimal."))),
        (status = 503, description = "`backup-failed`.")
    )
)]
pub(super) async fn make(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let permit = permit(&app, &caller, "backups").await?;
    let given: NewBackup = body.json()?;
    let name = name("The name", &given.name)?;
    let lasts_until = match given.keep_days {
        Some(days @ 1..=LONGEST) => Some(app.now().plus(DAY * days)),
        Some(_) => {
            return Err(Problem::bad_request(format!(
                "`keep_days` is not 1 to {LONGEST}."
            )));
        }
        None => None,
    };
    let mut random = [0; 8];
    app.random.fill(&mut random);
    let beside = format!("backup-{}.out", data_encoding::HEXLOWER.encode(&random));
    let path: PathBuf = app.escrow.folder().join(beside);
    let backup = app
        .escrow
        .backups()
        .make(&permit, &path, name, lasts_until)
        .await?;
    let opened = File::open(&path).await;
    // It stays readable to who has it open, and is gone with them.
    let removed = tokio::fs::remove_file(&path).await;
    let failed = |error| BackupError::File {
        what: "the backup cannot be read",
        error,
    };
    let file = opened
        .and_then(|file| removed.map(|()| file))
        .map_err(failed)?;
    let chunks = stream::try_unfold(file, async |mut file| {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    let mut response = Stream::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(backup.size));
    for (name, value) in [
        ("lockwarden-backup", &backup.id),
        ("lockwarden-digest", &backup.digest),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// Say that a backup is gone: the keys that only it needed can be destroyed.
#[utoipa::path(
    delete,
    path = "/v1/backups/{id}",
    tag = "backups",
    operation_id = "forget_backup",
    security(("token" = ["admin"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses(
        (status = 204, description = "It counts no more."),
        (status = 404, description = "`unknown-backup`.")
    )
)]
pub(super) async fn forget(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = permit(&app, &caller, &format!("backup {id}")).await?;
    if app.escrow.backups().forget(&permit, &id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-backup",
        "No such backup",
        "No backup with this identifier is on record, or it was forgotten before.",
    ))
}
