//! The API under `/v1`.

use axum::Router;

use crate::App;

/// The routes of the API, and its description.
pub(super) fn routes() -> Router<App> {
    Router::new()
}

/// The description of the API (OpenAPI), as JSON.
#[must_use]
pub fn description() -> String {
    String::new()
}
