//! Scripts, styles and pictures. Their names hold their versions, so that a browser keeps them for good.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use data_encoding::HEXLOWER;

use super::Turned;
use crate::http::extract::Path;
use crate::http::problem::Problem;

struct Asset {
    /// As pages name it: name, hash, ending.
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(name: &str, ending: &str, kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash = HEXLOWER.encode(&digest::digest(&digest::SHA256, bytes).as_ref()[..6]);
        Self {
            name: format!("{name}-{hash}.{ending}"),
            kind,
            bytes,
        }
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

static HTMX: LazyLock<Asset> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/htmx-4.0.1.min.js");
    Asset::new("htmx", "js", SCRIPT, bytes)
});
static CONSOLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "console",
        "js",
        SCRIPT,
        include_bytes!("../../assets/console.js"),
    )
});
static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let bytes = include_bytes!("../../assets/console.css");
    Asset::new("console", "css", "text/css; charset=utf-8", bytes)
});
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "icon",
        "svg",
        "image/svg+xml",
        include_bytes!("../../assets/icon.svg"),
    )
});

pub(super) fn htmx() -> &'static str {
    &HTMX.name
}

pub(super) fn console() -> &'static str {
    &CONSOLE.name
}

pub(super) fn style() -> &'static str {
    &STYLE.name
}

pub(super) fn icon() -> &'static str {
    &ICON.name
}

/// An asset by its name, for whoever asks.
pub(super) async fn get(Path(name): Path<String>) -> Result<Response, Turned> {
    let all = [&HTMX, &CONSOLE, &STYLE, &ICON];
    let found = all.into_iter().find(|asset| asset.name == name);
    let Some(asset) = found else {
        return Err(Problem::not_found("There is nothing at this address.").into());
    };
    let headers: HeaderMap = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.parse().expect("it is a value of a header")))
    .collect();
    Ok((StatusCode::OK, headers, asset.bytes).into_response())
}
