//! Tokens: what programs act with.

use activation_lock::time::DAY;
use escrow::permit::{Admin, Permissions, Permit, Scope};
use escrow::principals::{NewToken, TokenView};
use zeroize::Zeroizing;

use super::*;
use crate::http::api::LONGEST_TOKEN_LIFE as LONGEST_LIFE;
use crate::http::extract::{Path, name};

#[derive(Template)]
#[template(path = "tokens.html")]
pub(super) struct TokensPage {
    frame: Frame,
    tokens: Vec<TokenView>,
    /// The one that was just made, with its text. It is on this page and on no other.
    made: Option<(String, Zeroizing<String>)>,
}

impl TokensPage {
    async fn of(visitor: &Visitor) -> Result<(Self, Permit<Admin>), Turned> {
        let app = &visitor.app;
        let organisation = visitor.caller.organisation(app).await?;
        let actor = &visitor.caller.actor;
        let permit: Permit<Admin> = app.escrow.authorise(actor, &organisation, "tokens").await?;
        let page = Self {
            frame: visitor.frame("Tokens", &organisation).await?,
            tokens: app.escrow.principals().list_tokens(&permit).await?,
            made: None,
        };
        Ok((page, permit))
    }

    fn badge(&self, token: &TokenView) -> devices::Badge {
        let (word, class) = if token.revoked_at.is_some() {
            ("Taken back", "calm")
        } else if token.is_valid(self.frame.now) {
            ("Valid", "good")
        } else {
            ("Ended", "calm")
        };
        devices::Badge { word, class }
    }

    fn may(&self, token: &TokenView) -> String {
        let all: Vec<_> = token.permissions.iter().map(|one| one.as_str()).collect();
        all.join(", ")
    }
}

pub(super) async fn list(visitor: Visitor) -> Shown<TokensPage> {
    let (page, _) = TokensPage::of(&visitor).await?;
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn create(visitor: Visitor, form: Form) -> Shown<TokensPage> {
    let (_, permit) = TokensPage::of(&visitor).await?;
    let permissions = Permissions::SCOPES
        .iter()
        .filter(|scope| form.is_ticked(scope))
        .filter_map(|scope| Permissions::of_scope(scope))
        .fold(Permissions::NONE, Permissions::and);
    if permissions == Permissions::NONE {
        return Err(Problem::bad_request("It is not said what it may do.").into());
    }
    let days = match form.text("days").trim() {
        "" => None,
        text => Some(
            text.parse()
                .ok()
                .filter(|days| (1..=LONGEST_LIFE).contains(days))
                .ok_or_else(|| {
                    Problem::bad_request(format!("The days are not 1 to {LONGEST_LIFE}."))
                })?,
        ),
    };
    let new = NewToken {
        name: name("The name", form.text("name"))?.to_owned(),
        scope: Scope::One(permit.organisation().clone()),
        permissions,
        expires_at: days.map(|days: u32| visitor.app.now().plus(DAY * days)),
    };
    let (view, text) = visitor
        .app
        .escrow
        .principals()
        .create_token(&permit, new)
        .await?;
    let text = Zeroizing::new(text.expose().to_owned());
    let (page, _) = TokensPage::of(&visitor).await?;
    let page = TokensPage {
        made: Some((view.name, text)),
        ..page
    };
    Ok(Page(StatusCode::CREATED, page))
}

pub(super) async fn revoke(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    let (_, permit) = TokensPage::of(&visitor).await?;
    let principals = visitor.app.escrow.principals();
    if !principals.revoke_token(&permit, &id).await? {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-token",
            "No such token",
            "No token with this identifier is known here.",
        )
        .into());
    }
    Ok(see(&visitor.back("/tokens", "token-back")))
}
