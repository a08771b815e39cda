//! Codes taken away: an archive for whoever has no Lockwarden, or a table that anybody can read.

use std::collections::BTreeSet;

use activation_lock::device::SerialNumber;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use escrow::exports::{Export, ExportForm, ExportedCode, NewExport};
use escrow::permit::{self, Permit};
use futures_util::stream;
use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::codes::reason;
use super::shown::moment;
use crate::App;
use crate::auth::Caller;
use crate::http::extract::Body;
use crate::http::problem::Problem;

/// The most devices that are named in one request.
const MOST_DEVICES: usize = 10_000;
/// The most recipients of one archive.
const MOST_RECIPIENTS: usize = 20;
/// The columns, under the names that an import knows.
const COLUMNS: [&str; 10] = [
    "serial",
    "code",
    "kind",
    "product_type",
    "imei",
    "imei2",
    "meid",
    "source",
    "captured_at",
    "note",
];

/// Which codes, for whom, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCodeExport {
    /// In the person's own words; kept on record. 1 to 1,000 characters.
    reason: String,
    /// Whom the archive is for: public keys of the age format, `age1...`. At most 20.
    #[serde(default)]
    recipients: Vec<String>,
    /// True for a table that anybody can read, in place of an archive. It takes another person, whatever the policies say.
    #[serde(default)]
    plain: bool,
    /// The serial numbers; every device when they are left out. At most 10,000.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    devices: Vec<SerialNumber>,
}

/// What the codes go through on their way out.
enum Way {
    Plain,
    #[cfg(feature = "archive")]
    Sealed(Box<seal::AgeWriter>),
}

impl Way {
    fn write(&mut self, rows: Zeroizing<Vec<u8>>) -> std::io::Result<Bytes> {
        match self {
            Self::Plain => Ok(Bytes::from_owner(rows)),
            #[cfg(feature = "archive")]
            Self::Sealed(writer) => Ok(writer.write(&rows)?.into()),
        }
    }

    fn finish(self) -> std::io::Result<Bytes> {
        match self {
            Self::Plain => Ok(Bytes::new()),
            #[cfg(feature = "archive")]
            Self::Sealed(writer) => Ok(writer.finish()?.into()),
        }
    }
}

#[cfg(feature = "archive")]
fn sealed_for(recipients: &[String]) -> Result<(ExportForm, Way), Problem> {
    let parsed = recipients
        .iter()
        .map(|text| text.parse::<seal::AgeRecipient>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            Problem::bad_request(crate::http::extract::sentence(&error.to_string()))
        })?;
    let names = parsed.iter().map(ToString::to_string).collect();
    let writer = seal::AgeWriter::new(&parsed).map_err(|error| {
        tracing::error!(%error, "an archive cannot be begun");
        Problem::failed()
    })?;
    Ok((ExportForm::Sealed(names), Way::Sealed(Box::new(writer))))
}

#[cfg(not(feature = "archive"))]
fn sealed_for(_: &[String]) -> Result<(ExportForm, Way), Problem> {
    Err(Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "no-archives",
        "This build makes no archives",
        "The server was built without the feature `archive`. No code has left it.",
    )
    .hint("Use a build with it, or ask for a table, which takes another person."))
}

/// Take codes away, of every device or of some.
///
/// The answer is an archive in the age format (`age --decrypt` opens it) that holds a table, or the table itself (CSV, RFC 4180), with
/// the columns `serial`, `code`, `kind`, `product_type`, `imei`, `imei2`, `meid`, `source`, `captured_at` and `note`. Every code is a row,
/// the former ones too. A code whose cell is damaged has no text, and its note says so. Who asked and why is on record, and which codes
/// left, before they leave; channels for notices are told. An answer that breaks off is not whole.
#[utoipa::path(
    post,
    path = "/v1/exports",
    tag = "codes",
    operation_id = "export_codes",
    security(("token" = ["export"])),
    request_body = NewCodeExport,
    responses(
        (status = 200, description = "The archive (`application/octet-stream`) or the table (`text/csv`).", content_type = "application/octet-stream"),
        (status = 202, description = "Others were asked to approve it first, as the request wanted. No code is in this answer.",
            headers(("Location" = String, description = "Where the approval stands."))),
        (status = 501, description = "`no-archives`: the server was built without them.")
    )
)]
pub(super) async fn codes(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let organisation = caller.organisation(&app).await?;
    let permit: Permit<permit::Export> = app
        .escrow
        .authorise(&caller.actor, &organisation, "codes")
        .await?;
    let given: NewCodeExport = body.json()?;
    let reason = reason(&given.reason)?;
    if given.devices.len() > MOST_DEVICES || given.recipients.len() > MOST_RECIPIENTS {
        return Err(Problem::bad_request(format!(
            "More than {MOST_DEVICES} devices or {MOST_RECIPIENTS} recipients are named."
        )));
    }
    let (form, way) = match (given.recipients.is_empty(), given.plain) {
        (false, false) => sealed_for(&given.recipients)?,
        (true, true) => (ExportForm::Plain, Way::Plain),
        _ => {
            return Err(Problem::bad_request(
                "Name the recipients of an archive, or say `\"plain\": true` for a table that anybody can read.",
            )
            .hint("`age-keygen` makes a recipient's key."));
        }
    };
    let (kind, name) = match form {
        ExportForm::Sealed(_) => ("application/octet-stream", "codes.csv.age"),
        ExportForm::Plain => ("text/csv; charset=utf-8; header=present", "codes.csv"),
    };
    let new = NewExport {
        devices: given.devices.into_iter().collect::<BTreeSet<_>>(),
        form,
        reason: reason.to_owned(),
    };
    let export = app.escrow.exports().begin(&permit, new).await?;
    let mut headings = Zeroizing::new(Vec::new());
    write_row(&mut headings, &COLUMNS);
    let pieces = stream::try_unfold(
        Some((export, way, headings)),
        async |left: Option<(Export, Way, Zeroizing<Vec<u8>>)>| {
            let Some((mut export, mut way, mut rows)) = left else {
                return Ok(None);
            };
            let codes = export.next().await.map_err(std::io::Error::other);
            let codes = codes.inspect_err(broke_off)?;
            if codes.is_empty() {
                let mut piece = way.write(rows).inspect_err(broke_off)?.to_vec();
                piece.extend_from_slice(&way.finish().inspect_err(broke_off)?);
                return Ok::<_, std::io::Error>(Some((piece.into(), None)));
            }
            rows.reserve(codes.len() * 256);
            for code in &codes {
                row(&mut rows, code);
            }
            let piece = way.write(rows).inspect_err(broke_off)?;
            Ok(Some((piece, Some((export, way, Zeroizing::default())))))
        },
    );
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(disposition).map_err(|_| Problem::failed())?,
        ),
    ];
    Ok((StatusCode::OK, headers, Stream::from_stream(pieces)).into_response())
}

fn broke_off(error: &std::io::Error) {
    tracing::error!(%error, "an export of codes broke off");
}

fn row(table: &mut Zeroizing<Vec<u8>>, code: &ExportedCode) {
    let said = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let standing = if code.current { "current" } else { "former" };
    let note = match (&code.text, code.note.as_deref().unwrap_or_default()) {
        (None, _) => "damaged: the sealed code does not open".to_owned(),
        (Some(_), "") => standing.to_owned(),
        (Some(_), note) => format!("{standing}: {note}"),
    };
    let captured_at = moment(code.created_at);
    write_row(
        table,
        &[
            &code.serial,
            code.text.as_ref().map_or("", |text| text.expose()),
            code.kind.as_str(),
            &said(&code.product_type),
            &said(&code.imei),
            &said(&code.imei2),
            &said(&code.meid),
            code.origin.as_str(),
            &captured_at,
            &note,
        ],
    );
}

/// Writes one record, straight into a buffer that is wiped.
fn write_row(table: &mut Zeroizing<Vec<u8>>, fields: &[&str]) {
    let mut writer = csv_core::WriterBuilder::new()
        .terminator(csv_core::Terminator::CRLF)
        .build();
    // Room for each character doubled, and what stands between; a buffer that grew would leave a copy behind.
    let room = fields
        .iter()
        .map(|field| field.len() * 2 + 4)
        .sum::<usize>()
        + 4;
    grow(table, room);
    let start = table.len();
    table.resize(start + room, 0);
    let (rest, mut at) = (&mut table[start..], 0);
    for (number, field) in fields.iter().enumerate() {
        if number > 0 {
            at += writer.delimiter(&mut rest[at..]).1;
        }
        at += writer.field(field.as_bytes(), &mut rest[at..]).2;
    }
    at += writer.terminator(&mut rest[at..]).1;
    table.truncate(start + at);
}

/// Makes room, and wipes what it had before.
fn grow(table: &mut Zeroizing<Vec<u8>>, room: usize) {
    if table.capacity() - table.len() >= room {
        return;
    }
    let mut larger = Vec::with_capacity((table.len() + room) * 2);
    larger.extend_from_slice(table);
    *table = Zeroizing::new(larger);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_holds_what_divides_fields_is_quoted_and_an_opaque_code_is_left_as_it_is() {
        let mut table = Zeroizing::new(Vec::new());
        for fields in [
            ["SERIAL", "=1+1", "a,b"],
            ["a\"b", "", "one\ntwo"],
            ["\"\"\"\"\"", ",,,,", "x"],
        ] {
            write_row(&mut table, &fields);
        }
        assert_eq!(
            std::str::from_utf8(&table).unwrap(),
            "SERIAL,=1+1,\"a,b\"\r\n\"a\"\"b\",,\"one\ntwo\"\r\n\"\"\"\"\"\"\"\"\"\"\"\",\",,,,\",x\r\n"
        );
    }
}
