//! What a form sends.

use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use escrow::approvals::Leave;
use escrow::permit::Actor;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{Turned, Visitor, asked};
use crate::App;
use crate::http::extract::Body;
use crate::http::problem::Problem;

/// The fields of a form, a file's contents among them, wiped when dropped.
pub(crate) struct Form(Vec<(String, Zeroizing<Vec<u8>>)>);

impl FromRequest<App> for Form {
    type Rejection = Turned;

    async fn from_request(request: Request, app: &App) -> Result<Self, Turned> {
        if is_multipart(request.headers()) {
            let parts = in_parts(request);
            let read = tokio::time::timeout(app.settings.client_timeout, parts).await;
            return Ok(read.map_err(|_| Problem::too_slow())??);
        }
        let body = Body::from_request(request, app).await?;
        let fields = form_urlencoded::parse(body.bytes());
        let fields = fields.map(|(name, value)| {
            let value = Zeroizing::new(value.into_owned().into_bytes());
            (name.into_owned(), value)
        });
        Ok(Self(fields.collect()))
    }
}

/// A form that can hold a file comes in parts.
fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().starts_with("multipart/form-data"))
}

async fn in_parts(request: Request) -> Result<Form, Problem> {
    let broken = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
        _ => Problem::bad_request("What the form sent cannot be read."),
    };
    let mut parts = Multipart::from_request(request, &())
        .await
        .map_err(|_| Problem::bad_request("What the form sent cannot be read."))?;
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        let bytes = part.bytes().await.map_err(broken)?;
        fields.push((name, Zeroizing::new(bytes.to_vec())));
    }
    Ok(Form(fields))
}

impl Form {
    /// A field; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        std::str::from_utf8(self.bytes(name)).unwrap_or_default()
    }

    /// The contents of a file; empty when none was chosen.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map_or(&[], |(_, value)| value.as_slice())
    }

    /// A field that is nobody else's business.
    pub(crate) fn secret(&self, name: &str) -> Zeroizing<String> {
        Zeroizing::new(self.text(name).to_owned())
    }

    /// Whether a box is ticked.
    pub(crate) fn is_ticked(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }
}

/// Who asks, with how they mean to do what takes other people: by an approval that is given, by asking for one, or in an emergency.
pub(super) fn leave(visitor: &Visitor, form: &Form, reason: &str) -> Result<Actor, Turned> {
    let actor = visitor.caller.actor.clone();
    Ok(match form.text("leave") {
        "ask" => actor.with_leave(Leave::Asking(reason.to_owned())),
        "emergency" => actor.with_leave(Leave::BreakingGlass(reason.to_owned())),
        _ => match form.text("approval").trim() {
            "" => actor,
            approval => actor.with_leave(Leave::Under(approval.to_owned())),
        },
    })
}

/// What a person says to what they ask for, as the form shows it.
pub(super) struct Wish {
    pub(super) reason: String,
    /// What is wrong with what was sent.
    pub(super) wrong: Option<String>,
    /// The approval under which it is done; empty when there is none.
    pub(super) approval: String,
}

impl Wish {
    /// Nothing yet, but for the approval that the address names.
    pub(super) fn new(uri: &Uri) -> Self {
        Self {
            approval: asked(uri, "approval").unwrap_or_default(),
            ..Self::nothing()
        }
    }

    /// Nothing at all.
    pub(super) fn nothing() -> Self {
        Self {
            reason: String::new(),
            wrong: None,
            approval: String::new(),
        }
    }

    /// What was sent, with what is wrong with it.
    pub(super) fn again(form: &Form, problem: &Problem) -> Self {
        Self {
            reason: form.text("reason").to_owned(),
            wrong: Some(problem.said().detail.to_owned()),
            approval: form.text("approval").to_owned(),
        }
    }
}
