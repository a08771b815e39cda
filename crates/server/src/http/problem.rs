//! Refusals and failures, as problem documents (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use escrow::permit::Refusal;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::extract::sentence;

/// Before the name of every `type`.
pub(crate) const PREFIX: &str = "urn:lockwarden:problem:";

/// Why a request was not carried out. Boxed, for it is the rare one of two results.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(Box<Document>);

/// What a problem says to a person.
pub(crate) struct Said<'a> {
    pub(crate) title: &'a str,
    pub(crate) detail: &'a str,
    pub(crate) hint: Option<&'a str>,
    /// The organisations of which one has to be named.
    pub(crate) organisations: &'a [String],
}

/// Why a request was not carried out (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// Names the problem; stable. `urn:lockwarden:problem:` and a name. More may come.
    #[serde(rename = "type")]
    #[schema(example = "urn:lockwarden:problem:unknown-device")]
    kind: String,
    /// What it is, in a few words; the same for every case of it.
    #[schema(value_type = String)]
    title: Cow<'static, str>,
    /// The HTTP status.
    status: u16,
    /// What happened in this case.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    hint: Option<Cow<'static, str>>,
    /// The unlock that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlock: Option<String>,
    /// The lock that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    /// The approval that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
    /// The organisations to choose from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    organisations: Vec<String>,
    /// In how many seconds it is worth asking again; also in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Problem {
    /// `name` is stable; `title` goes with it.
    pub(crate) fn new(
        status: StatusCode,
        name: &str,
        title: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Document {
            kind: format!("{PREFIX}{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            unlock: None,
            lock: None,
            approval: None,
            organisations: Vec::new(),
            retry_after: None,
        }))
    }

    /// What it says to a person.
    pub(crate) fn said(&self) -> Said<'_> {
        Said {
            title: &self.0.title,
            detail: &self.0.detail,
            hint: self.0.hint.as_deref(),
            organisations: &self.0.organisations,
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// How long to wait before asking again, which the header `Retry-After` says.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait.as_secs().max(1));
        self
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The unlock that it is about.
    pub(crate) fn unlock(mut self, id: impl Into<String>) -> Self {
        self.0.unlock = Some(id.into());
        self
    }

    /// The lock that it is about.
    pub(crate) fn lock(mut self, id: impl Into<String>) -> Self {
        self.0.lock = Some(id.into());
        self
    }

    /// The organisations to choose from.
    pub(crate) fn organisations(mut self, organisations: Vec<String>) -> Self {
        self.0.organisations = organisations;
        self
    }

    /// What was sent cannot be read, or is not allowed to be so.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request cannot be read",
            detail,
        )
    }

    /// The body is larger than any that is taken.
    pub(crate) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The request is too large",
            "No request of this API needs so large a body, so it was not read to its end.",
        )
    }

    /// The body did not come in time.
    pub(crate) fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The request came too slowly",
            "Its body had not arrived when the time for it was over; nothing was done.",
        )
    }

    /// The body is not said to be JSON.
    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "The body is not said to be JSON",
            "The header Content-Type does not name application/json.",
        )
        .hint("Send `Content-Type: application/json`.")
    }

    /// No token, or one that opens nothing.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "Who asks is not known",
            "The request carries no token or session that is valid: none, or one that is mistyped, expired, revoked or ended.",
        )
        .hint("Send it as `Authorization: Bearer lw_token_...`. `lockwarden sign-in` begins a session, `lockwarden token create` makes a token.")
    }

    /// Nobody vouches for people here.
    pub(crate) fn no_single_sign_on() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-single-sign-on",
            "There is no single sign-on here",
            "No provider of identities is configured, or the server was built without the feature `oidc`.",
        )
        .hint("Sign in with a password; `[single_sign_on]` in the configuration names a provider.")
    }

    /// A sign-in that came to nothing.
    pub(crate) fn sign_in_over() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "sign-in-over",
            "Not signed in",
            "The sign-in is older than ten minutes, another one's, or was used; or the provider does not vouch for anybody with it.",
        )
        .hint("Begin again. When it goes on like this, the server's log says what the provider did.")
    }

    /// Who they are is known, and they are not let in.
    pub(crate) fn not_admitted(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not-admitted", "Not let in", detail)
    }

    /// The provider of identities does not answer as it must.
    #[cfg(feature = "oidc")]
    pub(crate) fn provider_unusable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "provider-unusable",
            "The provider of identities cannot be used",
            "It does not answer, or not as it must; nobody was signed in.",
        )
        .hint("The server's log says more. Who has a password here signs in with it.")
    }

    /// The status, and the same in words for a page.
    pub(crate) fn in_words(&self) -> (StatusCode, String) {
        let status = StatusCode::from_u16(self.0.status);
        let hint = self.0.hint.as_deref().unwrap_or_default();
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            format!("{} {hint}", self.0.detail).trim().to_owned(),
        )
    }

    /// A browser sent its session, and not for a page of ours.
    pub(crate) fn foreign_page() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign-page",
            "A page of another site asked for that",
            "The request carries a browser's session, and the browser does not say that a page of this server sent it. Nothing was done.",
        )
        .hint("Open the page from this server's own address. If a proxy stands in front, it must pass on `Host` and `Origin`, or `public_url` must be set.")
    }

    /// Others were asked. It is no refusal, and nothing was done.
    fn asked(approval: String) -> Self {
        let mut asked = Self::new(
            StatusCode::ACCEPTED,
            "approval-asked",
            "Others were asked",
            "Nothing is done before they say yes.",
        )
        .hint("Send the same request with `Lockwarden-Approval: ID` once it is approved.");
        asked.0.approval = Some(approval);
        asked
    }

    /// There is nothing of that name.
    pub(crate) fn not_found(what: &'static str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            what,
        )
    }

    /// A device that is not known within the caller's reach.
    pub(crate) fn unknown_device() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-device",
            "No such device",
            "No device with this serial number is known here.",
        )
        .hint(
            "Check the serial number. A device is known once its MDM told of it, once a list of Apple's enrolment service that \
             names it was read (`POST /v1/dep-tokens/{id}/sync` reads one now), or once something was set for it by hand.",
        )
    }

    /// The vault or something else failed. The log has the details.
    pub(crate) fn failed() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "storage",
            "The record could not be read or written",
            "Nothing was changed.",
        )
        .hint("Try again. If it stays so, look at the server's log and run `lockwarden doctor` there.")
    }
}

impl From<escrow::Error> for Problem {
    fn from(error: escrow::Error) -> Self {
        match error {
            escrow::Error::Refused(Refusal::Revoked) => Self::unauthenticated(),
            escrow::Error::Refused(refusal @ Refusal::Unfinished { .. }) => Self::new(
                StatusCode::FORBIDDEN,
                "second-factor-needed",
                "A second factor comes first",
                refusal.to_string(),
            ),
            escrow::Error::Refused(refusal @ Refusal::NotAPerson { .. }) => Self::new(
                StatusCode::FORBIDDEN,
                "person-needed",
                "That takes a person",
                refusal.to_string(),
            ),
            escrow::Error::Refused(refusal @ Refusal::ApprovalNeeded(_)) => Self::new(
                StatusCode::FORBIDDEN,
                "approval-needed",
                "That takes other people",
                sentence(&refusal.to_string()),
            )
            .hint(
                "Send the same request with the header `Lockwarden-Ask-Approval: REASON` (percent-encoded) to ask for it, and with \
                 `Lockwarden-Approval: ID` once it is given.",
            ),
            escrow::Error::Refused(refusal @ Refusal::NotNeeded) => Self::new(
                StatusCode::CONFLICT,
                "approval-not-needed",
                "That takes nobody else",
                sentence(&refusal.to_string()),
            )
            .hint("Send it without `Lockwarden-Ask-Approval`. Nothing was done."),
            escrow::Error::Refused(Refusal::Asked { approval }) => Self::asked(approval),
            escrow::Error::Refused(refusal @ Refusal::Unfit { .. }) => Self::new(
                StatusCode::CONFLICT,
                "approval-unfit",
                "The approval is not good for this",
                sentence(&refusal.to_string()),
            )
            .hint("`GET /v1/approvals?which=own` shows how yours stand."),
            escrow::Error::Refused(Refusal::Quota { wait, .. }) => {
                let told = error.to_string();
                Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "quota",
                    "Enough for an hour",
                    sentence(&told),
                )
                .retry_after(wait)
                .hint("An approval by another person is not counted. An administrator can set other numbers for the organisation.")
            }
            escrow::Error::Refused(refusal) => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "That is not allowed",
                refusal.to_string(),
            ),
            error => {
                tracing::error!(%error, "the vault failed");
                Self::failed()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        if !status.is_success() {
            headers.insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/problem+json"),
            );
        }
        let stands = self
            .0
            .approval
            .as_ref()
            .map(|id| format!("/v1/approvals/{id}"));
        if let Some(Ok(stands)) = stands.map(header::HeaderValue::try_from) {
            headers.insert(header::LOCATION, stands);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        let wait = match self.0.retry_after {
            None if status == StatusCode::SERVICE_UNAVAILABLE => Some(5),
            wait => wait,
        };
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from(wait));
        }
        response
    }
}
