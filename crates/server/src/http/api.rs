//! The API under `/v1`, and its description.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, get, on};
use utoipa::openapi::path::{HttpMethod, Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, Required, Response as Answer, Type};
use utoipa::{Modify, OpenApi};

use crate::App;
use crate::http::extract::Body;
use crate::http::problem::Document;

mod approvals;
mod audit;
mod backups;
mod batches;
mod business_api;
mod bypass_codes;
mod codes;
mod coverage;
pub(crate) mod dep_tokens;
mod devices;
mod exports;
mod keys;
mod lock_status;
mod locks;
mod mdm;
mod me;
mod notices;
mod organisations;
mod people;
mod purge;
mod push_certificates;
mod sessions;
mod shown;
mod single_sign_on;
mod tokens;
mod unlocks;

pub(crate) use approvals::{cancel_approval, decide, policy_refused};
pub(crate) use audit::{Found as AuditFound, export_rows, verify_record};
pub(crate) use batches::{
    Change as BatchChange, change_batch, line_in_words, read_batch, results_table, seconds_left,
};
pub(crate) use codes::reason;
pub(crate) use devices::{doubt, not_enrolled, window_in_words};
pub(crate) use locks::{
    cancel_lock, lock_in_words, message, not_assigned, organisation_of as organisation_of_lock,
    resume_lock, standing_in_words, unknown as unknown_lock, unknown_server_token,
};
pub(crate) use mdm::{Added as AddedMdm, add_mdm, test_mdm, usual as usual_of_mdm};
pub(crate) use people::{email, set_person};
pub(crate) use push_certificates::read_certificate;
pub(crate) use sessions::origin_of;
pub(crate) use shown::{ConnectionNames, moment};
pub(crate) use tokens::LONGEST_LIFE as LONGEST_TOKEN_LIFE;
pub(crate) use unlocks::{
    cancel_unlock, in_progress, no_product_type, organisation_of as organisation_of_unlock,
    resume_unlock, unknown as unknown_unlock, unlock_in_words,
};

/// Whether some request takes such a body. Each tries.
pub(crate) fn reads(bytes: &[u8]) -> bool {
    let body = Body::of_json(bytes);
    let read = [
        body.json::<approvals::Comment>().is_ok(),
        body.json::<approvals::NewApprovalPolicy>().is_ok(),
        body.json::<backups::NewBackup>().is_ok(),
        body.json::<batches::Wish>().is_ok(),
        body.json::<batches::Lines>().is_ok(),
        body.json::<business_api::NewAccount>().is_ok(),
        body.json::<bypass_codes::Given>().is_ok(),
        body.json::<codes::Why>().is_ok(),
        body.json::<codes::TypedText>().is_ok(),
        body.json::<dep_tokens::NewToken>().is_ok(),
        body.json::<devices::ByHand>().is_ok(),
        body.json::<exports::NewCodeExport>().is_ok(),
        body.json::<locks::Wish>().is_ok(),
        body.json::<mdm::NewMdm>().is_ok(),
        body.json::<mdm::Change>().is_ok(),
        body.json::<mdm::NewSecret>().is_ok(),
        body.json::<notices::NewChannel>().is_ok(),
        body.json::<organisations::NewOrganisation>().is_ok(),
        body.json::<organisations::Policy>().is_ok(),
        body.json::<people::NewPerson>().is_ok(),
        body.json::<people::Roles>().is_ok(),
        body.json::<people::PersonChange>().is_ok(),
        body.json::<purge::Why>().is_ok(),
        body.json::<push_certificates::NewCertificate>().is_ok(),
        body.json::<sessions::Claimed>().is_ok(),
        body.json::<sessions::Taken>().is_ok(),
        body.json::<sessions::NewPassword>().is_ok(),
        body.json::<sessions::Proved>().is_ok(),
        body.json::<sessions::Confirmed>().is_ok(),
        body.json::<single_sign_on::Wanted>().is_ok(),
        body.json::<single_sign_on::Answered>().is_ok(),
        body.json::<tokens::NewToken>().is_ok(),
        body.json::<unlocks::Wish>().is_ok(),
    ];
    read.contains(&true)
}

/// Every route, once: the router and the description are both made of this list, so that neither can have one that the other has
/// not. `__path_x` is what `utoipa::path` calls the description of `x`.
macro_rules! routes {
    ($($noun:ident: $($handler:ident $described:ident),+;)+) => {
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Lockwarden",
                version = "1",
                description = include_str!("api/description.md"),
                license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
            ),
            paths($($($noun::$handler),+),+),
            components(schemas(Document)),
            modifiers(&Everywhere),
        )]
        struct Api;

        fn described_routes() -> Router<App> {
            Router::new()$($(.route(
                &<$noun::$described as utoipa::Path>::path(),
                on(method::<$noun::$described>(), $noun::$handler),
            ))+)+
        }
    };
}

routes! {
    devices: list __path_list, show __path_show, set __path_set, refresh __path_refresh;
    purge: device __path_device;
    codes: reveal __path_reveal, add __path_add;
    unlocks: request __path_request, list __path_list, show __path_show, cancel __path_cancel, resume __path_resume;
    locks: request __path_request, list __path_list, show __path_show, cancel __path_cancel, resume __path_resume;
    batches: create __path_create, list __path_list, show __path_show, add_lines __path_add_lines, lines __path_lines,
        results __path_results, start __path_start, pause __path_pause, resume __path_resume, cancel __path_cancel;
    lock_status: show __path_show;
    bypass_codes: make_or_read __path_make_or_read;
    exports: codes __path_codes;
    coverage: show __path_show;
    mdm: list __path_list, add __path_add, show __path_show, change __path_change, remove __path_remove, test __path_test,
        rotate_secret __path_rotate_secret, retire_previous_secret __path_retire_previous_secret;
    push_certificates: list __path_list, add __path_add, remove __path_remove, test __path_test;
    dep_tokens: make_key __path_make_key, list_keys __path_list_keys, list __path_list, put __path_put, remove __path_remove,
        sync __path_sync, test __path_test;
    business_api: show __path_show, put __path_put, remove __path_remove, test __path_test;
    tokens: list __path_list, create __path_create, revoke __path_revoke;
    organisations: list __path_list, create __path_create, set __path_set;
    audit: list __path_list, export __path_export, verify __path_verify, checkpoints __path_checkpoints;
    people: list __path_list, invite __path_invite, show __path_show, set __path_set, set_roles __path_set_roles, reset __path_reset,
        sessions __path_sessions, end_sessions __path_end_sessions;
    sessions: sign_in __path_sign_in, take_invitation __path_take_invitation, sign_out __path_sign_out, list __path_list,
        end __path_end, change_password __path_change_password, make_second_factor __path_make_second_factor,
        confirm_second_factor __path_confirm_second_factor;
    single_sign_on: begin __path_begin, end __path_end, come_back __path_come_back;
    approvals: list __path_list, show __path_show, cancel __path_cancel, approve __path_approve, refuse __path_refuse,
        list_policies __path_list_policies, set_policy __path_set_policy, list_emergencies __path_list_emergencies,
        acknowledge __path_acknowledge;
    notices: list __path_list, add __path_add, remove __path_remove, test __path_test, rotate_secret __path_rotate_secret;
    backups: list __path_list, make __path_make, forget __path_forget;
    keys: show __path_show, rotate __path_rotate, verify __path_verify, destroy __path_destroy;
    me: show __path_show;
}

/// The routes of the API, and its description.
pub(super) fn routes() -> Router<App> {
    described_routes().route("/openapi.json", get(served))
}

fn method<P: utoipa::Path>() -> MethodFilter {
    let mut filters = P::methods().into_iter().map(|method| match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Delete => MethodFilter::DELETE,
        _ => unreachable!("no route is of another method"),
    });
    let first = filters.next().expect("a route has a method");
    filters.fold(first, MethodFilter::or)
}

/// The description, for programs. It needs no token: it is the same everywhere.
async fn served(_: Request) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], description()).into_response()
}

/// The description of the API (OpenAPI), as JSON.
#[must_use]
pub fn description() -> String {
    let mut text = Api::openapi()
        .to_pretty_json()
        .expect("the description is plain values");
    text.push('\n');
    text
}

/// What is true of every route: a token is needed, the organisation can be named, and refusals are problem documents.
struct Everywhere;

const PROBLEM: &str = "application/problem+json";

impl Modify for Everywhere {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token, `lw_token_...`, or a session, `lw_session_...`. The words beside it are the permissions that it, or the person, needs.",
            ))
            .build();
        let session = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A session of a person, `lw_session_...`: it is about themselves, and no token will do. A browser has it in a cookie.",
            ))
            .build();
        let organisation = ParameterBuilder::new()
            .name("organisation")
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(
                "The organisation, by identifier or name, when the token is valid in several.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build();
        let mut otherwise = Answer::new("A problem: see `type`.");
        otherwise.content.insert(PROBLEM.to_owned(), problem());
        let shared = api.components.get_or_insert_default();
        shared.add_security_scheme("token", SecurityScheme::Http(token));
        shared.add_security_scheme("session", SecurityScheme::Http(session));
        shared
            .parameters
            .insert("organisation".to_owned(), organisation.into());
        shared
            .responses
            .insert("Problem".to_owned(), otherwise.into());
        for item in api.paths.paths.values_mut() {
            let PathItem {
                get,
                put,
                post,
                delete,
                patch,
                ..
            } = item;
            for operation in [get, put, post, delete, patch].into_iter().flatten() {
                complete(operation);
            }
        }
    }
}

fn complete(operation: &mut Operation) {
    let organisation = RefOr::Ref(Ref::new("#/components/parameters/organisation"));
    operation
        .parameters
        .get_or_insert_default()
        .push(organisation);
    let responses = &mut operation.responses.responses;
    for (status, response) in &mut *responses {
        if let RefOr::T(response) = response
            && status.starts_with('4')
        {
            response.content.insert(PROBLEM.to_owned(), problem());
        }
    }
    responses.insert(
        "default".to_owned(),
        RefOr::Ref(Ref::from_response_name("Problem")),
    );
}

fn problem() -> RefOr<Content> {
    RefOr::T(Content::new(Some(Ref::from_schema_name("Problem"))))
}
