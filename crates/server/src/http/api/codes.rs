//! The codes of a device: shown to a person, added by hand.

use activation_lock::bypass_code::BypassCode;
use activation_lock::codes::{CodeId, CodeKind, CodeOrigin, CodeText, Form, TextShape};
use activation_lock::device::SerialNumber;
use activation_lock::explain;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use escrow::codes::TypedCode;
use escrow::permit::{Edit, Permit, Read, Reveal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::devices::doubt;
use super::shown::{Explanation, Moment};
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, SecretJson, misleads, parsed};
use crate::http::problem::Problem;

/// The most characters of a reason.
const LONGEST_REASON: usize = 1_000;
/// The most characters of a code that is typed. A bypass code has 31.
const LONGEST_CODE: usize = 200;

/// A reason as it goes on record: not blank, not a book, and what is seen of it is what it says.
pub(crate) fn reason(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    let may_stand = |c: char| !misleads(c) || matches!(c, '\n' | '\r' | '\t');
    if text.is_empty() || text.chars().count() > LONGEST_REASON || !text.chars().all(may_stand) {
        return Err(Problem::bad_request(format!(
            "The reason is blank, longer than {LONGEST_REASON} characters, or holds control characters."
        ))
        .hint("It is kept on record beside who asked: say why, such as a ticket's number."));
    }
    Ok(text)
}

/// Why the codes are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RevealReason)]
pub(super) struct Why {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
}

/// The codes of a device, with their texts.
#[derive(Serialize, ToSchema)]
#[schema(as = RevealedCodes)]
pub(super) struct Revealed<'a> {
    #[schema(value_type = String)]
    serial: &'a SerialNumber,
    /// The current codes first, then the others, the last seen first.
    codes: Vec<RevealedCode<'a>>,
    /// What it means for them that they were seen; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    afterwards: Option<&'static str>,
}

/// A code with its text.
#[derive(Serialize, ToSchema)]
struct RevealedCode<'a> {
    id: &'a str,
    /// The text, with dashes where it can be read as a bypass code; else as it was given.
    code: &'a str,
    /// The text as it was given, where that is written otherwise.
    as_given: Option<&'a str>,
    /// Who made it: `device`, `server` (this product, for a lock of its own) or `unknown`.
    #[schema(value_type = String)]
    kind: CodeKind,
    /// Whether it is the current code of its kind.
    current: bool,
    /// How it came to be known: `device`, `made`, `import` or `person`.
    #[schema(value_type = String)]
    origin: CodeOrigin,
    /// How the text was written: `canonical`, `lenient`, or `opaque`, which does not look like a code.
    #[schema(value_type = String)]
    shape: TextShape,
    /// Why it may not open the lock, in a stable word, if there is a doubt. More may come.
    doubt: Option<&'a str>,
    /// The doubt in words.
    doubt_explanation: Option<Explanation>,
    /// How it is typed on this kind of device.
    how_to_type: &'a str,
    note: Option<&'a str>,
    /// When it was first seen.
    created_at: Moment,
    /// When it was last seen.
    seen_at: Moment,
    /// When a lock was last turned off with it.
    used_at: Option<Moment>,
}

/// Show the codes of a device to a person.
///
/// Who asked, and why, is on record before the answer leaves. The device is asked for its code again afterwards.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/reveal",
    tag = "codes",
    operation_id = "reveal_codes",
    security(("token" = ["reveal", "read"])),
    params(("serial" = String, Path, description = "The serial number.")),
    request_body = Why,
    responses(
        (status = 200, description = "The codes. None is known when the list is empty.", body = Revealed<'_>),
        (status = 202, description = "Others were asked to approve it first, as the request wanted. No code is in this answer.",
            headers(("Location" = String, description = "Where the approval stands."))),
        (status = 404, description = "`unknown-device`"),
        (status = 409, description = "`ambiguous-device`: several organisations know it; name one.")
    )
)]
pub(super) async fn reveal(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation_of(&app, &serial).await?;
    let subject = format!("device {serial}");
    let permit: Permit<Reveal> = app
        .escrow
        .authorise(&caller.actor, &organisation, &*subject)
        .await?;
    let read: Permit<Read> = app
        .escrow
        .authorise(&caller.actor, &organisation, subject)
        .await?;
    let why: Why = body.json()?;
    let reason = reason(&why.reason)?;
    let device = app
        .escrow
        .devices()
        .get(&read, &serial)
        .await?
        .ok_or_else(Problem::unknown_device)?;
    let family = device
        .summary
        .product_type
        .as_ref()
        .map(|product| product.family());
    let mut codes = app.escrow.codes().reveal(&permit, &serial, reason).await?;
    codes.sort_by_key(|code| (!code.view.current, std::cmp::Reverse(code.view.seen_at)));
    // Each is wiped when dropped.
    let dashed: Vec<_> = codes
        .iter()
        .map(|code| code.text.in_form(Form::Canonical))
        .collect();
    let how_to_type = explain::how_to_type(family);
    let rows = codes.iter().zip(&dashed).map(|(code, dashed)| {
        let (text, view) = (code.text.expose(), &code.view);
        RevealedCode {
            id: &view.id.0,
            code: dashed,
            as_given: (text != dashed.as_str()).then_some(text),
            kind: view.kind,
            current: view.current,
            origin: view.origin,
            shape: view.shape,
            doubt: view.doubt.as_deref(),
            doubt_explanation: view.doubt.as_deref().and_then(doubt).map(Explanation::from),
            how_to_type: &how_to_type,
            note: view.note.as_deref(),
            created_at: view.created_at.into(),
            seen_at: view.seen_at.into(),
            used_at: view.used_at.map(Moment),
        }
    });
    let revealed = Revealed {
        serial: &serial,
        codes: rows.collect(),
        afterwards: (!codes.is_empty()).then(explain::after_a_reveal),
    };
    Ok(SecretJson(StatusCode::OK, revealed).into_response())
}

/// A code that a person has from elsewhere.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCode)]
pub(super) struct TypedText {
    /// The text as the person has it. It is kept as it is, also when it does not look like a code. 1 to 200 characters.
    #[schema(value_type = String, write_only)]
    text: Secret,
    /// Who made it, where that is known: `device`, `server` or `unknown`, which is what is taken when it is left out.
    kind: Option<String>,
    /// Where it comes from; at most 200 characters are kept.
    note: Option<String>,
}

/// What came of a code that was added by hand. Its text is not in it.
#[derive(Serialize, ToSchema)]
#[schema(as = AddedCode)]
pub(super) struct Added {
    id: String,
    /// False when this very code was known already.
    new: bool,
    /// How it is written: `canonical`, `lenient` or `opaque`.
    #[schema(value_type = String)]
    shape: TextShape,
    /// What is to be looked at: the text does not look like a bypass code. It is kept and will be tried all the same.
    warning: Option<String>,
}

/// Add a code of a device by hand. A device that is not known yet becomes known.
///
/// It becomes a candidate for unlocks, and never replaces what the device itself told. It is on record who added it.
#[utoipa::path(
    post,
    path = "/v1/devices/{serial}/codes",
    tag = "codes",
    operation_id = "add_code",
    security(("token" = ["edit"])),
    params(("serial" = String, Path, description = "The serial number.")),
    request_body = TypedText,
    responses(
        (status = 201, description = "It is kept.", body = Added),
        (status = 200, description = "It was known already, and was seen once more.", body = Added)
    )
)]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Path(serial): Path<SerialNumber>,
    body: Body,
) -> Result<(StatusCode, Json<Added>), Problem> {
    let organisation = caller.organisation_to_be_of(&app, &serial).await?;
    let permit: Permit<Edit> = app
        .escrow
        .authorise(&caller.actor, &organisation, format!("device {serial}"))
        .await?;
    let given: TypedText = body.json()?;
    let kind = given
        .kind
        .as_deref()
        .map_or(Ok(CodeKind::Unknown), parsed)?;
    let text = given.text.into_text();
    if text.chars().count() > LONGEST_CODE {
        return Err(Problem::bad_request(format!(
            "The code is longer than {LONGEST_CODE} characters."
        )));
    }
    // An error names one character at most.
    let doubt = BypassCode::parse_lenient(&text).err();
    let text = CodeText::new(text.to_string())
        .ok_or_else(|| Problem::bad_request("The code is blank."))?;
    let typed = TypedCode {
        serial,
        text,
        kind,
        note: given.note,
    };
    let typed = app.escrow.codes().add_typed(&permit, typed).await?;
    let CodeId(id) = typed.code;
    let warning = doubt.map(|why| {
        format!(
            "This does not look like a bypass code: {why}. It is kept as it is and will be tried after the others. Compare \
             it with where it comes from; a corrected one can be added beside it."
        )
    });
    let status = if typed.new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        Json(Added {
            id,
            new: typed.new,
            shape: typed.shape,
            warning,
        }),
    ))
}
