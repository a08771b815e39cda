//! Bypass codes of nobody: made, or shown in their three forms. No device is involved and nothing is kept.

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash, RAW_BYTES};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use escrow::permit::{Permission, Permit, Read};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Secret, SecretJson, sentence};
use crate::http::problem::Problem;

/// A code to be looked at; nothing, to have one made.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GivenBypassCode)]
pub(super) struct Given {
    /// The text that a person types. Small letters, spaces and missing dashes are forgiven.
    #[schema(value_type = Option<String>, write_only)]
    code: Option<Secret>,
    /// The raw code, 32 hexadecimal digits.
    #[schema(value_type = Option<String>, write_only)]
    raw: Option<Secret>,
}

/// A bypass code in its three forms.
#[derive(Serialize, ToSchema)]
#[schema(as = BypassCode)]
pub(super) struct Forms<'a> {
    /// 32 hexadecimal digits.
    raw: &'a str,
    /// The text that a person types: 31 characters with dashes.
    code: &'a str,
    /// What a lock request to Apple carries: 64 hexadecimal digits.
    hash: &'a str,
}

fn not_a_code(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "not-a-code",
        "This is not a bypass code",
        sentence(why),
    )
}

fn read(given: Given, app: &App) -> Result<BypassCode, Problem> {
    match (given.code, given.raw) {
        (None, None) => {
            let mut raw = Zeroizing::new([0; RAW_BYTES]);
            app.random.fill(raw.as_mut_slice());
            Ok(BypassCode::from_raw(*raw))
        }
        // An error names one character at most.
        (Some(code), None) => BypassCode::parse_lenient(&code.into_text())
            .map_err(|error| not_a_code(&error.to_string())),
        (None, Some(raw)) => {
            let (text, mut bytes) = (raw.into_text(), Zeroizing::new([0; RAW_BYTES]));
            let digits = text.trim().as_bytes();
            let fits = digits.len() == 2 * RAW_BYTES
                && HEXLOWER_PERMISSIVE
                    .decode_mut(digits, bytes.as_mut_slice())
                    .is_ok();
            if fits {
                Ok(BypassCode::from_raw(*bytes))
            } else {
                Err(not_a_code(
                    "a raw code is 32 hexadecimal digits and nothing else",
                ))
            }
        }
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "Both `code` and `raw` are given: give one of them.",
        )),
    }
}

/// Make a bypass code, or show one in its three forms. Nothing is kept.
///
/// Without a body, or with `{}`, a new code is made.
#[utoipa::path(
    post,
    path = "/v1/bypass-codes",
    tag = "codes",
    operation_id = "make_or_read_code",
    security(("token" = ["read"])),
    request_body(content = Option<Given>, description = "May be left out."),
    responses(
        (status = 200, description = "The code.", body = Forms<'_>),
        (status = 422, description = "`not-a-code`")
    )
)]
pub(super) async fn make_or_read(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let _: Permit<Read> = app
        .escrow
        .authorise(
            &caller.actor,
            &caller.anywhere(Permission::Read),
            "bypass codes",
        )
        .await?;
    let code = read(body.json_or_default()?, &app)?;
    let (code, hash) = hashed(code).await?;
    let text = code.to_text();
    let raw = Zeroizing::new(HEXLOWER.encode(code.raw()));
    let hash = Zeroizing::new(hash.to_string());
    let forms = Forms {
        raw: &raw,
        code: &text,
        hash: &hash,
    };
    Ok(SecretJson(StatusCode::OK, forms).into_response())
}

/// The hash takes milliseconds by design, so that it is not made where requests are answered.
async fn hashed(code: BypassCode) -> Result<(BypassCode, EscrowKeyHash), Problem> {
    tokio::task::spawn_blocking(move || {
        let hash = EscrowKeyHash::of(&code);
        (code, hash)
    })
    .await
    .map_err(|error| {
        tracing::error!(%error, "a code could not be hashed");
        Problem::failed()
    })
}
