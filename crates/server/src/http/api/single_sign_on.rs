//! Signing in by a provider of identities: begun here, proved there, ended here.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use data_encoding::BASE64URL_NOPAD;
use escrow::sessions::{IdentityProblem, Origin, SessionView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::sessions::{Begun, Session, origin_of, too_many};
use crate::App;
use crate::auth::{Address, cookie};
use crate::http::REFRESH;
use crate::http::extract::{Body, Query, Secret, SecretJson};
use crate::http::problem::Problem;
use crate::http::refusals::Kind;
use crate::single_sign_on::{self, Answer};

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SingleSignOn)]
pub(super) struct Wanted {
    /// Have a browser keep the ticket, and then the session, in cookies.
    #[serde(default)]
    cookie: bool,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
#[schema(as = BegunSingleSignOn)]
pub(super) struct Next {
    /// The provider's page.
    url: String,
    /// What to bring with the answer, within ten minutes; left out when it is in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
}

/// Begin to sign in by the provider of identities.
///
/// A person goes to the page that the answer names and proves there who they are. A browser comes back signed in. For a program, the page
/// that the person then sees shows a word to copy: it goes with the ticket to `POST /v1/sign-in/provider/session`.
#[utoipa::path(
    post,
    path = "/v1/sign-in/provider",
    tag = "people",
    operation_id = "begin_single_sign_on",
    security(()),
    request_body = Wanted,
    responses(
        (status = 200, description = "It has begun.", body = Next),
        (status = 403, description = "`foreign-page`: a browser was asked to by a page of another site."),
        (status = 404, description = "`no-single-sign-on`: no provider is configured, or the build has no single sign-on."),
        (status = 429, description = "`too-many-tries`: `retry_after` says how long to wait."),
        (status = 503, description = "`provider-unusable`: it does not answer, or not as it must.")
    )
)]
pub(super) async fn begin(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let given: Wanted = body.json()?;
    if given.cookie {
        cookie::from_ours(&headers, &app, address)?;
    }
    let begun = single_sign_on::begin(&app).await?;
    let kept = match given.cookie {
        true => Some(cookie::set_ticket(&begun.ticket).ok_or_else(Problem::failed)?),
        false => None,
    };
    let next = Next {
        url: begun.url,
        ticket: (!given.cookie).then_some(begun.ticket),
    };
    let mut response = Json(next).into_response();
    if let Some(kept) = kept {
        response.headers_mut().insert(header::SET_COOKIE, kept);
    }
    Ok(response)
}

/// The ticket, and what came of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SingleSignOnAnswer)]
pub(super) struct Answered {
    /// As it was given.
    #[schema(value_type = String)]
    ticket: Secret,
    /// The word that the person was shown.
    #[schema(value_type = String)]
    answer: Secret,
}

/// End signing in by the provider, for a program.
#[utoipa::path(
    post,
    path = "/v1/sign-in/provider/session",
    tag = "people",
    operation_id = "end_single_sign_on",
    security(()),
    request_body = Answered,
    responses(
        (status = 201, description = "The session has begun.", body = Begun<'_>),
        (status = 401, description = "`sign-in-over`: the ticket is too old or of another sign-in, or the provider vouches for nobody."),
        (status = 403, description = "`not-admitted`: who they are is known, and they are not let in."),
        (status = 404, description = "`no-single-sign-on`"),
        (status = 429, description = "`too-many-tries`: `retry_after` says how long to wait."),
        (status = 503, description = "`provider-unusable`")
    )
)]
pub(super) async fn end(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let given: Answered = body.json()?;
    let word = given.answer.into_text();
    let (code, state) = unfold(word.trim()).ok_or_else(Problem::sign_in_over)?;
    let (ticket, answer) = (
        given.ticket.into_text(),
        Answer {
            code: &code,
            state: &state,
        },
    );
    let origin = origin_of(&headers, address);
    let (view, text) = admit(&app, address, &ticket, answer, origin).await?;
    let begun = Begun {
        session: Some(text.expose()),
        view: Session::new(view, app.now()),
    };
    Ok(SecretJson(StatusCode::CREATED, begun).into_response())
}

/// What the provider sends a browser back with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CameBack {
    /// What is exchanged for an identity.
    code: Option<String>,
    /// Which sign-in it is of.
    state: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// Where the provider sends a browser back to: a page for people.
#[utoipa::path(
    get,
    path = "/v1/sign-in/provider/callback",
    tag = "people",
    operation_id = "come_back_from_provider",
    security(()),
    params(CameBack),
    responses((status = 200, description = "A page: signed in, or a word to copy.", content_type = "text/html"))
)]
pub(super) async fn come_back(
    State(app): State<App>,
    Address(address): Address,
    headers: HeaderMap,
    Query(query): Query<CameBack>,
) -> Response {
    let (code, state) = match (query.code, query.state, query.error) {
        (Some(code), Some(state), None) => (code, state),
        (.., Some(error)) => {
            let told: String = error
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(60)
                .collect();
            let what = format!("The provider of identities did not vouch for you: {told}.");
            return page(StatusCode::UNAUTHORIZED, "Not signed in", &[&what], None);
        }
        _ => {
            let what = "This page is where a provider of identities sends people back to.";
            return page(StatusCode::BAD_REQUEST, "Nothing to see", &[what], None);
        }
    };
    let Some(ticket) = cookie::ticket(&headers) else {
        let word = fold(&code, &state);
        let what = "Copy this word to the terminal where you began to sign in. It is for you alone: whoever asks you for it wants to be you.";
        return page(StatusCode::OK, "Almost signed in", &[what], Some(&word));
    };
    let answer = Answer {
        code: &code,
        state: &state,
    };
    let origin = origin_of(&headers, address);
    let mut response = match admit(&app, address, ticket, answer, origin).await {
        Ok((view, text)) => {
            let lasts = view.expires_at.since(view.created_at);
            let Some(kept) = cookie::set(text.expose(), lasts) else {
                return Problem::failed().into_response();
            };
            let mut response = page(
                StatusCode::OK,
                "Signed in",
                &["You are signed in to Lockwarden."],
                None,
            );
            response.headers_mut().append(header::SET_COOKIE, kept);
            // To the console, which a person came for.
            let on = HeaderValue::from_static("0; url=/");
            response.headers_mut().insert(REFRESH, on);
            response
        }
        Err(problem) => {
            let (status, words) = problem.in_words();
            page(status, "Not signed in", &[&words], None)
        }
    };
    response
        .headers_mut()
        .append(header::SET_COOKIE, cookie::forget_ticket());
    response
}

async fn admit(
    app: &App,
    address: Option<std::net::IpAddr>,
    ticket: &str,
    answer: Answer<'_>,
    origin: Origin,
) -> Result<(SessionView, escrow::principals::SecretText), Problem> {
    let sessions = app.escrow.sessions();
    if let Some(wait) = sessions
        .begin_with_provider(origin.address.as_deref())
        .await?
    {
        app.refusals.count(Kind::SignIn, address, app.now());
        return Err(too_many(wait));
    }
    let identity = match single_sign_on::identify(app, ticket, answer).await {
        Ok(identity) => identity,
        Err(problem) => {
            app.refusals.count(Kind::SignIn, address, app.now());
            return Err(problem);
        }
    };
    let rules = app.settings.sign_in;
    match sessions
        .sign_in_with_provider(identity, origin, rules)
        .await?
    {
        Ok(begun) => Ok(begun),
        Err(problem) => {
            let told = format!("The provider vouches for you, and you are not let in: {problem}.");
            Err(Problem::not_admitted(told).hint(match problem {
                IdentityProblem::NoRole => "Ask to be put into a group that has a role here.",
                IdentityProblem::LoginTaken | IdentityProblem::BadLogin => {
                    "Ask an administrator: the claim that names people can be another (`login_claim`), or the name can be changed."
                }
                IdentityProblem::ShutOut => "Ask an administrator to let you in again.",
            }))
        }
    }
}

/// Code and state as one word that is easy to copy.
fn fold(code: &str, state: &str) -> String {
    BASE64URL_NOPAD.encode(format!("{code}\n{state}").as_bytes())
}

fn unfold(word: &str) -> Option<(String, String)> {
    let bytes = BASE64URL_NOPAD.decode(word.as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (code, state) = text.split_once('\n')?;
    Some((code.to_owned(), state.to_owned()))
}

/// A page without styles and scripts, which the headers forbid.
fn page(status: StatusCode, title: &str, paragraphs: &[&str], word: Option<&str>) -> Response {
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0} - Lockwarden</title></head><body><main><h1>{0}</h1>",
        escaped(title)
    );
    for paragraph in paragraphs {
        text.push_str(&format!("<p>{}</p>", escaped(paragraph)));
    }
    if let Some(word) = word {
        text.push_str(&format!("<p><code>{}</code></p>", escaped(word)));
    }
    text.push_str("</main></body></html>\n");
    (status, Html(text)).into_response()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_state_are_one_word_and_two_again() {
        let word = fold("a.b/c+d=", "x-y_z");
        assert!(
            word.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        );
        assert_eq!(
            unfold(&word),
            Some(("a.b/c+d=".to_owned(), "x-y_z".to_owned()))
        );
        for wrong in ["", "!", "YWJj"] {
            assert_eq!(unfold(wrong), None);
        }
    }

    #[test]
    fn nothing_of_a_text_becomes_a_part_of_the_page() {
        assert_eq!(
            escaped("<script a='b' c=\"d\">&"),
            "&lt;script a=&#39;b&#39; c=&quot;d&quot;&gt;&amp;"
        );
    }
}
