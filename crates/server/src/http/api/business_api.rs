//! The API account for Apple's Business and School Manager API (contract sheet 4.7 to 4.11).

use apple::business_manager::assertion::SigningKey;
use apple::business_manager::{ApiAccount, Tested as Found};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use escrow::business_apis::{BusinessApiView, NewBusinessApi};
use escrow::permit::{Connections, Permit, Read};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::organisations;
use super::shown::Moment;
use crate::App;
use crate::auth::Caller;
use crate::http::extract::{Body, Path, Secret, sentence};
use crate::http::problem::Problem;

/// An API account, without its key.
#[derive(Serialize, ToSchema)]
pub(super) struct BusinessApi {
    client_id: String,
    key_id: String,
    /// What a person has to mend, in words.
    problem: Option<String>,
    /// Since when.
    problem_at: Option<Moment>,
    /// Until then nothing is asked with it.
    retry_at: Option<Moment>,
    /// When the list of devices was last read to its end.
    listed_at: Option<Moment>,
    created_at: Moment,
    updated_at: Moment,
}

impl From<BusinessApiView> for BusinessApi {
    fn from(view: BusinessApiView) -> Self {
        let (problem, problem_at) = view.problem.unzip();
        Self {
            client_id: view.client_id,
            key_id: view.key_id,
            problem,
            problem_at: problem_at.map(Moment),
            retry_at: view.retry_at.map(Moment),
            listed_at: view.listed_at.map(Moment),
            created_at: view.created_at.into(),
            updated_at: view.updated_at.into(),
        }
    }
}

/// An API account, as Apple Business Manager or Apple School Manager shows it once.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAccount {
    /// Begins with `BUSINESSAPI.` or `SCHOOLAPI.`.
    client_id: String,
    key_id: String,
    /// The private key, PEM.
    #[schema(value_type = String)]
    private_key: Secret,
}

/// Show the API account of an organisation.
#[utoipa::path(
    get,
    path = "/v1/organisations/{id}/business-api",
    tag = "business api",
    operation_id = "show_business_api",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 200, description = "The API account.", body = BusinessApi), (status = 404, description = "`no-business-api`, `unknown-organisation`"))
)]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<BusinessApi>, Problem> {
    let permit: Permit<Read> = organisations::permit_in(&app, &caller, &id, "business api").await?;
    let account = app.escrow.business_apis().get(&permit).await?;
    Ok(Json(account.ok_or_else(none)?.into()))
}

/// Set the API account of an organisation. Apple's status of its devices is asked for from then on, and their list read.
#[utoipa::path(
    put,
    path = "/v1/organisations/{id}/business-api",
    tag = "business api",
    operation_id = "put_business_api",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    request_body = NewAccount,
    responses(
        (status = 200, description = "It is kept.", body = BusinessApi),
        (status = 404, description = "`unknown-organisation`"),
        (status = 422, description = "`business-api-unusable`: the key or an identifier is none. Nothing was changed.")
    )
)]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<BusinessApi>, Problem> {
    let permit = may_connect(&app, &caller, &id).await?;
    let given: NewAccount = body.json()?;
    let key = SigningKey::from_pem(given.private_key.into_text().as_bytes())
        .map_err(|error| unusable(&error.to_string()))?;
    let private_key = key.to_sealed_pem();
    let account = ApiAccount::new(&given.client_id, &given.key_id, key)
        .map_err(|error| unusable(&error.to_string()))?;
    let new = NewBusinessApi {
        client_id: account.client_id().to_owned(),
        key_id: account.key_id().to_owned(),
        private_key,
    };
    let view = app.escrow.business_apis().put(&permit, new).await?;
    Ok(Json(view.into()))
}

fn unusable(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "business-api-unusable",
        "The API account cannot be used",
        sentence(why),
    )
}

/// Remove the API account of an organisation. What Apple said stays on record.
#[utoipa::path(
    delete,
    path = "/v1/organisations/{id}/business-api",
    tag = "business api",
    operation_id = "remove_business_api",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 204, description = "It is removed."), (status = 404, description = "`no-business-api`, `unknown-organisation`"))
)]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let permit = may_connect(&app, &caller, &id).await?;
    if app.escrow.business_apis().remove(&permit).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(none())
    }
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
#[schema(as = BusinessApiTest)]
pub(super) struct Tested {
    /// Whether the API account works.
    ok: bool,
    /// What was found.
    detail: String,
}

/// Ask Apple for an access token and for one device. It changes nothing there.
#[utoipa::path(
    post,
    path = "/v1/organisations/{id}/business-api/test",
    tag = "business api",
    operation_id = "test_business_api",
    security(("token" = ["connections"])),
    params(("id" = String, Path, description = "The organisation's identifier, or its name.")),
    responses((status = 200, description = "What was found, good or bad.", body = Tested), (status = 404, description = "`no-business-api`, `unknown-organisation`"))
)]
pub(super) async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Tested>, Problem> {
    let permit = may_connect(&app, &caller, &id).await?;
    let (ok, detail) = match app.services.business(permit.organisation()).await {
        Ok(Some((service, account))) => {
            let found = service.test(app.machine_now()).await;
            if found == Found::Works {
                app.escrow
                    .business_apis()
                    .note(&account, None, None)
                    .await?;
            }
            (found == Found::Works, found.to_string())
        }
        Ok(None) => return Err(none()),
        Err(failed) => (false, failed.why().to_owned()),
    };
    Ok(Json(Tested {
        ok,
        detail: sentence(&detail),
    }))
}

fn none() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-business-api",
        "There is no API account",
        "The organisation has no API account here for Apple's Business and School Manager API.",
    )
}

async fn may_connect(app: &App, caller: &Caller, id: &str) -> Result<Permit<Connections>, Problem> {
    organisations::permit_in(app, caller, id, "business api").await
}
