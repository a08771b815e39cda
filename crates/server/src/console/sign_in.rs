//! Signing in and out, and the second factor that comes before anything else.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use escrow::people::credentials::Change;
use escrow::sessions::{Claim, SignIn};
use seal::Password;
use zeroize::Zeroizing;

use super::*;
use crate::auth::Address;
use crate::http::api::origin_of;
use crate::http::refusals::Kind;
use crate::single_sign_on;

#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignInPage {
    next: String,
    login: String,
    wrong: Option<String>,
    is_sandbox: bool,
    /// A provider of identities vouches for people.
    has_provider: bool,
}

/// A place of ours to go to, or the first page: nobody is led elsewhere.
fn ours(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    if is_path && next.chars().all(|c| c.is_ascii_graphic()) {
        next
    } else {
        "/"
    }
}

pub(super) async fn show(State(app): State<App>, uri: Uri) -> Page<SignInPage> {
    let next = asked(&uri, "next").unwrap_or_default();
    Page(StatusCode::OK, page(&app, &next, "", None))
}

fn page(app: &App, next: &str, login: &str, wrong: Option<String>) -> SignInPage {
    SignInPage {
        next: ours(next).to_owned(),
        login: login.to_owned(),
        wrong,
        is_sandbox: app.settings.sandbox,
        has_provider: app.settings.single_sign_on.is_some(),
    }
}

#[derive(Template)]
#[template(path = "to_provider.html")]
pub(super) struct ToProviderPage {
    url: String,
}

/// Sends a browser to the provider's page. A form may lead nowhere but here, so it is a page that goes on by itself.
pub(super) async fn by_provider(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
) -> Result<Response, Turned> {
    cookie::from_ours(&headers, &app, address)?;
    let begun = single_sign_on::begin(&app).await?;
    let kept = cookie::set_ticket(&begun.ticket).ok_or_else(Problem::failed)?;
    let on = HeaderValue::try_from(format!("0; url={}", begun.url));
    let on = on.map_err(|_| Problem::failed())?;
    let page = Page(StatusCode::OK, ToProviderPage { url: begun.url });
    let mut response = page.into_response();
    response.headers_mut().insert(REFRESH, on);
    response.headers_mut().insert(header::SET_COOKIE, kept);
    Ok(response)
}

pub(super) async fn sign_in(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Turned> {
    cookie::from_ours(&headers, &app, address)?;
    let code = form.secret("code");
    let claim = Claim {
        login: form.text("login").trim().to_owned(),
        password: Password::claimed(form.secret("password")),
        code: (!code.trim().is_empty()).then_some(code),
    };
    let origin = origin_of(&headers, address);
    let rules = app.settings.sign_in;
    let (status, wrong) = match app.escrow.sessions().sign_in(claim, origin, rules).await? {
        SignIn::In(view, text) => {
            let lasts = view.expires_at.since(view.created_at);
            let kept = cookie::set(text.expose(), lasts).ok_or_else(Problem::failed)?;
            let mut response = see(ours(form.text("next")));
            response.headers_mut().insert(header::SET_COOKIE, kept);
            return Ok(response);
        }
        SignIn::Refused { on_record } => {
            if !on_record {
                app.refusals.count(Kind::SignIn, address, app.now());
            }
            let wrong = "The name, the password or the code is wrong, or the code was used before. Wait for the next code and try \
                         again. Who lost their password or second factor asks an administrator for a new invitation.";
            (StatusCode::UNAUTHORIZED, wrong.to_owned())
        }
        SignIn::Wait(wait) => {
            app.refusals.count(Kind::SignIn, address, app.now());
            let wrong = format!(
                "After some wrong tries the next one has to wait, longer each time; nothing was looked at. Try again in {} seconds.",
                wait.as_secs().max(1)
            );
            (StatusCode::TOO_MANY_REQUESTS, wrong)
        }
    };
    let page = page(&app, form.text("next"), form.text("login"), Some(wrong));
    Ok(Page(status, page).into_response())
}

pub(super) async fn sign_out(visitor: Visitor) -> Result<Response, Turned> {
    let sessions = visitor.app.escrow.sessions();
    sessions.end_own(&visitor.caller.actor, None).await?;
    let mut response = see("/sign-in");
    response
        .headers_mut()
        .insert(header::SET_COOKIE, cookie::forget());
    Ok(response)
}

#[derive(Template)]
#[template(path = "second_factor.html")]
pub(super) struct SecondFactorPage {
    person: String,
    /// Once it is made: its text, and it as a picture.
    made: Option<(Zeroizing<String>, Option<reveal::Picture>)>,
    wrong: Option<&'static str>,
    is_needed: bool,
}

impl SecondFactorPage {
    fn of(visitor: &Visitor, wrong: Option<&'static str>) -> Self {
        Self {
            person: visitor.caller.actor.name().to_owned(),
            made: None,
            wrong,
            is_needed: visitor.caller.actor.is_unfinished(),
        }
    }
}

pub(super) async fn second_factor(visitor: Visitor) -> Page<SecondFactorPage> {
    Page(StatusCode::OK, SecondFactorPage::of(&visitor, None))
}

const WRONG: &str = "That is wrong, or was used before. Nothing was changed.";
const TOO_MANY: &str =
    "After some wrong tries the next one has to wait, longer each time; nothing was looked at.";

pub(super) async fn make_second_factor(visitor: Visitor, form: Form) -> Shown<SecondFactorPage> {
    let password = Password::claimed(form.secret("password"));
    let credentials = visitor.app.escrow.credentials();
    let actor = &visitor.caller.actor;
    let secret = match credentials.begin_second_factor(actor, password).await? {
        Ok(secret) => secret,
        Err(Change::Wait(_)) => {
            let page = SecondFactorPage::of(&visitor, Some(TOO_MANY));
            return Ok(Page(StatusCode::TOO_MANY_REQUESTS, page));
        }
        Err(_) => {
            let page = SecondFactorPage::of(&visitor, Some(WRONG));
            return Ok(Page(StatusCode::FORBIDDEN, page));
        }
    };
    let picture = reveal::Picture::of(&secret.address("Lockwarden", actor.name()));
    let page = SecondFactorPage {
        made: Some((secret.text(), picture)),
        ..SecondFactorPage::of(&visitor, None)
    };
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn confirm_second_factor(
    visitor: Visitor,
    form: Form,
) -> Result<Response, Turned> {
    let credentials = visitor.app.escrow.credentials();
    let code = form.secret("code");
    let actor = &visitor.caller.actor;
    Ok(
        match credentials.confirm_second_factor(actor, code).await? {
            Change::Done => see("/"),
            Change::Wrong => Page(
                StatusCode::FORBIDDEN,
                SecondFactorPage::of(&visitor, Some(WRONG)),
            )
            .into_response(),
            Change::Wait(_) => {
                let page = SecondFactorPage::of(&visitor, Some(TOO_MANY));
                Page(StatusCode::TOO_MANY_REQUESTS, page).into_response()
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_another_place_after_the_sign_in() {
        assert_eq!(ours("/devices?search=a"), "/devices?search=a");
        for elsewhere in [
            "",
            "devices",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nset-cookie: b",
            "/\tb",
        ] {
            assert_eq!(ours(elsewhere), "/", "{elsewhere}");
        }
    }
}
