//! Push certificates: what Apple knows the organisation by.

use activation_lock::time::Timestamp;
use apple::escrow_key_unlock::{Handshake, UnlockService};
use apple::push_certificate::{PushCertificate, WARNING};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::permit::{Connections, Permit, Read};
use escrow::push_certificates::{NewPushCertificate, PushCertificateView};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mdm::Tested;
use super::shown::{Moment, Page};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, sentence};
use crate::http::problem::Problem;

/// A push certificate, without its key.
#[derive(Serialize, ToSchema)]
#[schema(as = PushCertificate)]
pub(super) struct Certificate {
    id: String,
    /// The topic: UID of its subject.
    topic: String,
    subject: String,
    /// SHA-256 of its DER form, in lower-case hexadecimal digits.
    fingerprint: String,
    not_before: Moment,
    not_after: Moment,
    /// Whole days until it ends; negative once it is over.
    days_left: i64,
    /// `usable`, `expiring` (60 days or less are left), `expired`, `not_yet_valid`, `superseded` or `removed`. More may come.
    state: &'static str,
    /// When it was added.
    created_at: Moment,
    /// When another of its topic took its place.
    superseded_at: Option<Moment>,
    /// When it was removed.
    removed_at: Option<Moment>,
}

impl Certificate {
    fn new(view: PushCertificateView, now: Timestamp) -> Self {
        let day = i64::try_from(activation_lock::time::DAY.as_millis()).unwrap_or(i64::MAX);
        let state = if view.removed_at.is_some() {
            "removed"
        } else if view.superseded_at.is_some() {
            "superseded"
        } else if now < view.not_before {
            "not_yet_valid"
        } else if now >= view.not_after {
            "expired"
        } else if now >= view.not_after.minus(WARNING) {
            "expiring"
        } else {
            "usable"
        };
        Self {
            days_left: view.not_after.0.saturating_sub(now.0).div_euclid(day),
            state,
            id: view.id,
            topic: view.topic,
            subject: view.subject,
            fingerprint: view.fingerprint,
            not_before: view.not_before.into(),
            not_after: view.not_after.into(),
            created_at: view.created_at.into(),
            superseded_at: view.superseded_at.map(Moment),
            removed_at: view.removed_at.map(Moment),
        }
    }
}

/// A push certificate to be kept.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPushCertificate)]
pub(super) struct NewCertificate {
    /// The certificate, its chain and its private key, as PEM. The key must not be encrypted: it is kept sealed here.
    #[schema(value_type = String, write_only)]
    pem: Secret,
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-push-certificate",
        "No such push certificate",
        "No push certificate with this identifier is in use here.",
    )
    .hint("`GET /v1/push-certificates` lists them.")
}

fn subject(id: &str) -> String {
    format!("push certificate {id}")
}

/// List the push certificates, newest first; superseded and removed ones too.
#[utoipa::path(
    get,
    path = "/v1/push-certificates",
    tag = "push certificates",
    operation_id = "list_push_certificates",
    security(("token" = ["read"])),
    responses((status = 200, description = "All of them; there is one page.", body = Page<Certificate>))
)]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<Certificate>>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, "push certificates")
        .await?;
    let now = app.now();
    let all = app.escrow.push_certificates().list(&permit).await?;
    Ok(Json(Page::whole(
        all.into_iter()
            .map(|one| Certificate::new(one, now))
            .collect(),
    )))
}

/// Add a push certificate with its key, or the renewed one of a topic, which takes the place of the older.
///
/// Unlocks that wait for one go on at once. The very same certificate again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/push-certificates",
    tag = "push certificates",
    operation_id = "add_push_certificate",
    security(("token" = ["connections"])),
    request_body = NewCertificate,
    responses(
        (status = 201, description = "It is kept.", body = Certificate),
        (status = 422, description = "`push-certificate-unusable`: it is no push certificate with its key.")
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Certificate>), Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, "push certificates")
        .await?;
    let given: NewCertificate = body.json()?;
    let new = read_certificate(given.pem.into_text().as_bytes())?;
    let view = app.escrow.push_certificates().add(&permit, new).await?;
    Ok((StatusCode::CREATED, Json(Certificate::new(view, app.now()))))
}

/// A push certificate with its key, as it is kept.
pub(crate) fn read_certificate(pem: &[u8]) -> Result<NewPushCertificate, Problem> {
    let certificate = PushCertificate::from_pem(pem, None).map_err(|error| {
        // Nothing of the key is ever in these words.
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "push-certificate-unusable",
            "The push certificate cannot be used",
            sentence(&error.to_string()),
        )
    })?;
    Ok(NewPushCertificate {
        topic: certificate.topic().to_owned(),
        fingerprint: certificate.fingerprint().to_owned(),
        subject: certificate.subject().to_owned(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        pem: certificate.to_sealed_pem(),
    })
}

/// Remove a push certificate: it is not used any more. What was done with it stays on record.
#[utoipa::path(
    delete,
    path = "/v1/push-certificates/{id}",
    tag = "push certificates",
    operation_id = "remove_push_certificate",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses((status = 204, description = "It is removed."), (status = 404, description = "`unknown-push-certificate`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    if app.escrow.push_certificates().remove(&permit, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

/// Show a push certificate to Apple's server, without sending a code.
///
/// It tells whether the secure connection is made with this certificate. Whether Apple accepts it for an unlock shows only in an
/// unlock (unverified).
#[utoipa::path(
    post,
    path = "/v1/push-certificates/{id}/test",
    tag = "push certificates",
    operation_id = "test_push_certificate",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "Its identifier.")),
    responses((status = 200, description = "What was found, good or bad.", body = Tested), (status = 404, description = "`unknown-push-certificate`"))
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Tested>, Problem> {
    let organisation = caller.organisation(&app).await?;
    let _: Permit<Connections> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject(&id))
        .await?;
    let open = app
        .escrow
        .push_certificates()
        .open_by_id(&organisation, &id)
        .await?
        .ok_or_else(unknown)?;
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a push certificate cannot be used for a test");
        Problem::failed()
    };
    let certificate =
        PushCertificate::from_sealed_pem(&open.pem).map_err(|error| failed(&error))?;
    let service =
        UnlockService::new(&app.settings.apple, &certificate).map_err(|error| failed(&error))?;
    let host = service.recipient().to_owned();
    let (ok, detail, hint) = match service.test(app.now()).await {
        Handshake::Accepted { status } => (
            true,
            format!(
                "{host} made the secure connection with this certificate, and answered {status} to a request without a code. \
                 Whether it accepts the certificate for an unlock shows only in an unlock (unverified)."
            ),
            None,
        ),
        Handshake::Expired => (
            false,
            "The certificate has expired.".to_owned(),
            Some("Renew it, with the same Apple Account, so that its topic stays; then add it."),
        ),
        Handshake::Refused { diagnostic } => (
            false,
            format!("{host} did not accept this certificate: {diagnostic}."),
            Some("Check whether it was revoked, and whether it is the one for device management."),
        ),
        Handshake::NotReached { diagnostic } => (
            false,
            format!(
                "{host} gave no answer, so nothing can be said about the certificate: {diagnostic}."
            ),
            Some(
                "Check that this server reaches that host on port 443, and that nothing between inspects the encrypted traffic.",
            ),
        ),
    };
    Ok(Json(Tested {
        ok,
        detail,
        hint: hint.map(str::to_owned),
    }))
}
