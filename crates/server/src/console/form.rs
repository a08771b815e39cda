//! What a form sends.

use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::Uri;
use escrow::approvals::Leave;
use escrow::permit::Actor;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{Turned, Visitor};
use crate::App;
use crate::http::extract::Body;
use crate::http::problem::Problem;

/// The fields of a form, wiped when dropped.
pub(crate) struct Form(Vec<(String, Zeroizing<String>)>);

impl FromRequest<App> for Form {
    type Rejection = Turned;

    async fn from_request(request: Request, app: &App) -> Result<Self, Turned> {
        let body = Body::from_request(request, app).await?;
        let fields = form_urlencoded::parse(body.bytes());
        let fields =
            fields.map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())));
        Ok(Self(fields.collect()))
    }
}

impl Form {
    /// A field; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map_or("", |(_, value)| value.as_str())
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
        let query = uri.query().unwrap_or_default().as_bytes();
        let named = form_urlencoded::parse(query).find(|(name, _)| name == "approval");
        Self {
            reason: String::new(),
            wrong: None,
            approval: named.map_or_else(String::new, |(_, id)| id.into_owned()),
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
