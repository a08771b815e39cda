//! Every route is walked: without a token, with one that lacks a permission, with exactly those it needs.

use std::collections::{BTreeMap, BTreeSet};

use escrow::permit::{Permission, Permissions, Role, Scope};
use reqwest::Method;
use serde_json::Value;

use crate::api::sessions::Person;
use crate::api::{Client, token_of};
use crate::support::Stage;

/// Method, path as described, an address of it where there is nothing, and the permissions it needs.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const DEVICE: &str = "/v1/devices/{serial}";
const APPROVAL: &str = "/v1/approvals/{id}";
const PERSON: &str = "/v1/people/{person}";
/// What anybody may ask, to become somebody.
const OPEN: &[&str] = &["nothing at all"];
/// What a person asks about themselves, and no token.
const SESSION: &[&str] = &["a session"];

const TABLE: &[Row] = &[
    ("GET", "/v1/devices", "/v1/devices", &["read"]),
    ("GET", DEVICE, "/v1/devices/NOSUCHDEVICE", &["read"]),
    (
        "PATCH",
        DEVICE,
        "/v1/devices/NOSUCHDEVICE",
        &["edit", "read"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/refresh",
        "/v1/devices/NOSUCHDEVICE/refresh",
        &["refresh"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/purge",
        "/v1/devices/NOSUCHDEVICE/purge",
        &["purge"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/reveal",
        "/v1/devices/NOSUCHDEVICE/reveal",
        &["reveal", "read"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/codes",
        "/v1/devices/NOSUCHDEVICE/codes",
        &["edit"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/unlock",
        "/v1/devices/NOSUCHDEVICE/unlock",
        &["unlock"],
    ),
    (
        "GET",
        "/v1/devices/{serial}/unlocks",
        "/v1/devices/NOSUCHDEVICE/unlocks",
        &["read"],
    ),
    ("GET", "/v1/unlocks/{id}", "/v1/unlocks/none", &["read"]),
    (
        "DELETE",
        "/v1/unlocks/{id}",
        "/v1/unlocks/none",
        &["unlock"],
    ),
    (
        "POST",
        "/v1/unlocks/{id}/continue",
        "/v1/unlocks/none/continue",
        &["unlock"],
    ),
    (
        "POST",
        "/v1/devices/{serial}/lock",
        "/v1/devices/NOSUCHDEVICE/lock",
        &["lock"],
    ),
    (
        "GET",
        "/v1/devices/{serial}/locks",
        "/v1/devices/NOSUCHDEVICE/locks",
        &["read"],
    ),
    (
        "GET",
        "/v1/devices/{serial}/lock-status",
        "/v1/devices/NOSUCHDEVICE/lock-status",
        &["read"],
    ),
    (
        "POST",
        "/v1/batches",
        "/v1/batches?action=unlock",
        &["unlock"],
    ),
    ("GET", "/v1/batches", "/v1/batches", &["read"]),
    ("GET", "/v1/batches/{id}", "/v1/batches/none", &["read"]),
    (
        "GET",
        "/v1/batches/{id}/lines",
        "/v1/batches/none/lines",
        &["read"],
    ),
    (
        "POST",
        "/v1/batches/{id}/lines",
        "/v1/batches/none/lines",
        &["read"],
    ),
    (
        "GET",
        "/v1/batches/{id}/results",
        "/v1/batches/none/results",
        &["read"],
    ),
    (
        "POST",
        "/v1/batches/{id}/start",
        "/v1/batches/none/start",
        &["read"],
    ),
    (
        "POST",
        "/v1/batches/{id}/pause",
        "/v1/batches/none/pause",
        &["read"],
    ),
    (
        "POST",
        "/v1/batches/{id}/resume",
        "/v1/batches/none/resume",
        &["read"],
    ),
    ("DELETE", "/v1/batches/{id}", "/v1/batches/none", &["read"]),
    ("GET", "/v1/locks/{id}", "/v1/locks/none", &["read"]),
    ("DELETE", "/v1/locks/{id}", "/v1/locks/none", &["lock"]),
    (
        "POST",
        "/v1/locks/{id}/continue",
        "/v1/locks/none/continue",
        &["lock"],
    ),
    (
        "POST",
        "/v1/organisations/{id}/dep-keys",
        "/v1/organisations/none/dep-keys",
        &["connections"],
    ),
    (
        "GET",
        "/v1/organisations/{id}/dep-keys",
        "/v1/organisations/none/dep-keys",
        &["read"],
    ),
    (
        "GET",
        "/v1/organisations/{id}/dep-tokens",
        "/v1/organisations/none/dep-tokens",
        &["read"],
    ),
    (
        "PUT",
        "/v1/organisations/{id}/dep-tokens",
        "/v1/organisations/none/dep-tokens",
        &["connections"],
    ),
    (
        "DELETE",
        "/v1/dep-tokens/{id}",
        "/v1/dep-tokens/none",
        &["connections"],
    ),
    (
        "POST",
        "/v1/dep-tokens/{id}/sync",
        "/v1/dep-tokens/none/sync",
        &["refresh"],
    ),
    (
        "POST",
        "/v1/dep-tokens/{id}/test",
        "/v1/dep-tokens/none/test",
        &["connections"],
    ),
    (
        "GET",
        "/v1/organisations/{id}/business-api",
        "/v1/organisations/none/business-api",
        &["read"],
    ),
    (
        "PUT",
        "/v1/organisations/{id}/business-api",
        "/v1/organisations/none/business-api",
        &["connections"],
    ),
    (
        "DELETE",
        "/v1/organisations/{id}/business-api",
        "/v1/organisations/none/business-api",
        &["connections"],
    ),
    (
        "POST",
        "/v1/organisations/{id}/business-api/test",
        "/v1/organisations/none/business-api/test",
        &["connections"],
    ),
    ("POST", "/v1/bypass-codes", "/v1/bypass-codes", &["read"]),
    ("GET", "/v1/coverage", "/v1/coverage", &["read"]),
    ("GET", "/v1/mdm", "/v1/mdm", &["read"]),
    ("POST", "/v1/mdm", "/v1/mdm", &["connections"]),
    ("GET", "/v1/mdm/{name}", "/v1/mdm/none", &["read"]),
    ("PATCH", "/v1/mdm/{name}", "/v1/mdm/none", &["connections"]),
    ("DELETE", "/v1/mdm/{name}", "/v1/mdm/none", &["connections"]),
    (
        "POST",
        "/v1/mdm/{name}/test",
        "/v1/mdm/none/test",
        &["connections", "read"],
    ),
    (
        "POST",
        "/v1/mdm/{name}/rotate-secret",
        "/v1/mdm/none/rotate-secret",
        &["connections", "read"],
    ),
    (
        "POST",
        "/v1/mdm/{name}/retire-previous-secret",
        "/v1/mdm/none/retire-previous-secret",
        &["connections"],
    ),
    (
        "GET",
        "/v1/push-certificates",
        "/v1/push-certificates",
        &["read"],
    ),
    (
        "POST",
        "/v1/push-certificates",
        "/v1/push-certificates",
        &["connections"],
    ),
    (
        "DELETE",
        "/v1/push-certificates/{id}",
        "/v1/push-certificates/none",
        &["connections"],
    ),
    (
        "POST",
        "/v1/push-certificates/{id}/test",
        "/v1/push-certificates/none/test",
        &["connections"],
    ),
    ("GET", "/v1/tokens", "/v1/tokens", &["admin"]),
    ("POST", "/v1/tokens", "/v1/tokens", &["admin"]),
    ("DELETE", "/v1/tokens/{id}", "/v1/tokens/none", &["admin"]),
    ("GET", "/v1/organisations", "/v1/organisations", &["admin"]),
    ("POST", "/v1/organisations", "/v1/organisations", &["admin"]),
    (
        "PATCH",
        "/v1/organisations/{id}",
        "/v1/organisations/none",
        &["admin"],
    ),
    ("GET", "/v1/audit", "/v1/audit", &["audit"]),
    ("GET", "/v1/audit/export", "/v1/audit/export", &["audit"]),
    ("GET", "/v1/audit/verify", "/v1/audit/verify", &["audit"]),
    (
        "GET",
        "/v1/audit/checkpoints",
        "/v1/audit/checkpoints",
        &["audit"],
    ),
    ("GET", "/v1/approvals", "/v1/approvals", &["read"]),
    ("GET", APPROVAL, "/v1/approvals/none", &["read"]),
    ("DELETE", APPROVAL, "/v1/approvals/none", &["read"]),
    (
        "POST",
        "/v1/approvals/{id}/approve",
        "/v1/approvals/none/approve",
        &["approve"],
    ),
    (
        "POST",
        "/v1/approvals/{id}/refuse",
        "/v1/approvals/none/refuse",
        &["approve"],
    ),
    (
        "GET",
        "/v1/approval-policies",
        "/v1/approval-policies",
        &["read"],
    ),
    (
        "PUT",
        "/v1/approval-policies/{action}",
        "/v1/approval-policies/none",
        &["admin"],
    ),
    ("GET", "/v1/emergencies", "/v1/emergencies", &["read"]),
    (
        "POST",
        "/v1/emergencies/{id}/acknowledge",
        "/v1/emergencies/none/acknowledge",
        &["approve"],
    ),
    (
        "GET",
        "/v1/notice-channels",
        "/v1/notice-channels",
        &["admin"],
    ),
    (
        "POST",
        "/v1/notice-channels",
        "/v1/notice-channels",
        &["admin"],
    ),
    (
        "DELETE",
        "/v1/notice-channels/{id}",
        "/v1/notice-channels/none",
        &["admin"],
    ),
    (
        "POST",
        "/v1/notice-channels/{id}/test",
        "/v1/notice-channels/none/test",
        &["admin"],
    ),
    (
        "POST",
        "/v1/notice-channels/{id}/rotate-secret",
        "/v1/notice-channels/none/rotate-secret",
        &["admin"],
    ),
    ("POST", "/v1/exports", "/v1/exports", &["export"]),
    ("POST", "/v1/sign-in/provider", "/v1/sign-in/provider", OPEN),
    (
        "POST",
        "/v1/sign-in/provider/session",
        "/v1/sign-in/provider/session",
        OPEN,
    ),
    (
        "GET",
        "/v1/sign-in/provider/callback",
        "/v1/sign-in/provider/callback",
        OPEN,
    ),
    ("GET", "/v1/backups", "/v1/backups", &["admin"]),
    ("POST", "/v1/backups", "/v1/backups", &["admin"]),
    ("DELETE", "/v1/backups/{id}", "/v1/backups/none", &["admin"]),
    ("GET", "/v1/keys", "/v1/keys", &["admin"]),
    ("POST", "/v1/keys/rotate", "/v1/keys/rotate", &["admin"]),
    ("POST", "/v1/keys/verify", "/v1/keys/verify", &["admin"]),
    ("DELETE", "/v1/keys/{id}", "/v1/keys/none", &["admin"]),
    ("GET", "/v1/me", "/v1/me", &[]),
    ("GET", "/v1/people", "/v1/people", &["admin"]),
    ("POST", "/v1/people", "/v1/people", &["admin"]),
    ("GET", PERSON, "/v1/people/none", &["admin"]),
    ("PATCH", PERSON, "/v1/people/none", &["admin"]),
    (
        "PUT",
        "/v1/people/{person}/roles",
        "/v1/people/none/roles",
        &["admin"],
    ),
    (
        "POST",
        "/v1/people/{person}/reset",
        "/v1/people/none/reset",
        &["admin"],
    ),
    (
        "GET",
        "/v1/people/{person}/sessions",
        "/v1/people/none/sessions",
        &["admin"],
    ),
    (
        "DELETE",
        "/v1/people/{person}/sessions",
        "/v1/people/none/sessions",
        &["admin"],
    ),
    ("POST", "/v1/sign-in", "/v1/sign-in", OPEN),
    ("POST", "/v1/invitations", "/v1/invitations", OPEN),
    ("POST", "/v1/sign-out", "/v1/sign-out", SESSION),
    ("GET", "/v1/sessions", "/v1/sessions", SESSION),
    ("DELETE", "/v1/sessions/{id}", "/v1/sessions/none", SESSION),
    ("PUT", "/v1/me/password", "/v1/me/password", SESSION),
    (
        "POST",
        "/v1/me/second-factor",
        "/v1/me/second-factor",
        SESSION,
    ),
    (
        "PUT",
        "/v1/me/second-factor",
        "/v1/me/second-factor",
        SESSION,
    ),
];

/// Rows of what a token needs.
fn for_tokens() -> impl Iterator<Item = &'static Row> {
    TABLE
        .iter()
        .filter(|(_, _, _, needed)| *needed != OPEN && *needed != SESSION)
}

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

fn permissions(names: &BTreeSet<&str>) -> Permissions {
    let all = Permission::ALL.iter().copied();
    Permissions::of(
        &all.filter(|p| names.contains(p.as_str()))
            .collect::<Vec<_>>(),
    )
}

#[test]
fn the_table_has_every_described_route_with_its_permissions_and_no_other() {
    let description: Value = serde_json::from_str(&server::description()).unwrap();
    let mut described = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = &operation["security"][0];
            let named = |names: &[&str]| names.iter().map(|p| (*p).to_owned()).collect();
            let needed: BTreeSet<_> = match security["token"].as_array() {
                Some(needed) => needed
                    .iter()
                    .map(|p| p.as_str().unwrap().to_owned())
                    .collect(),
                None if security["session"].is_array() => named(SESSION),
                None => {
                    assert_eq!(*security, serde_json::json!({}), "{path}");
                    named(OPEN)
                }
            };
            described.insert((path.clone(), method.to_uppercase()), needed);
        }
    }
    let table: BTreeMap<_, _> = TABLE
        .iter()
        .map(|(method, path, _, needed)| {
            let needed: BTreeSet<_> = needed.iter().map(|p| (*p).to_owned()).collect();
            (((*path).to_owned(), (*method).to_owned()), needed)
        })
        .collect();
    assert_eq!(table.len(), TABLE.len(), "a route stands there twice");
    assert_eq!(table, described);
}

#[tokio::test]
async fn every_route_refuses_who_has_no_valid_token() {
    let stage = Stage::new().await;
    let valid = stage.token(&["read"]).await;
    let mistyped = valid.replace("lw_token_", "lw_tokem_");
    let revoked = {
        let admin = Client::with(&stage, &["admin", "read"]).await;
        let made = admin
            .post(
                "/v1/tokens",
                serde_json::json!({ "name": "x", "scopes": ["read", "admin"] }),
            )
            .await;
        let (id, token) = (made.json()["id"].clone(), made.json()["token"].clone());
        admin
            .delete(&format!("/v1/tokens/{}", id.as_str().unwrap()))
            .await;
        token.as_str().unwrap().to_owned()
    };
    for (name, _, path, needed) in TABLE {
        if *needed == OPEN {
            continue;
        }
        for token in ["", &mistyped, &revoked] {
            let answer = Client::new(&stage, token)
                .ask(method(name), path, None)
                .await;
            assert_eq!(
                answer.refusal(),
                (401, "unauthenticated".to_owned()),
                "{name} {path}"
            );
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer"),
                "{name} {path}"
            );
        }
    }
}

#[tokio::test]
async fn every_route_refuses_who_lacks_a_permission_and_that_is_on_record() {
    let stage = Stage::new().await;
    let all: BTreeSet<_> = Permission::ALL.iter().map(|p| p.as_str()).collect();
    let mut without = BTreeMap::new();
    for lacking in &all {
        let has: BTreeSet<_> = all.iter().copied().filter(|p| p != lacking).collect();
        let token = token_of(&stage, Scope::All, permissions(&has)).await;
        without.insert(*lacking, Client::new(&stage, &token));
    }
    let mut refused = 0;
    for (name, _, path, needed) in for_tokens() {
        for lacking in *needed {
            let answer = without[lacking].ask(method(name), path, None).await;
            assert_eq!(
                answer.refusal(),
                (403, "forbidden".to_owned()),
                "{name} {path} without {lacking}"
            );
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&format!("`{lacking}`")), "{detail}");
            refused += 1;
        }
    }
    assert!(refused >= for_tokens().count());
    let admin = Client::with(&stage, &["admin"]).await;
    let rows = admin.get("/v1/audit?action=refused&limit=500").await.json();
    let rows = rows["items"].as_array().unwrap();
    assert!(
        rows.iter()
            .any(|row| row["result"] == "no_permission" && row["subject"] == "device NOSUCHDEVICE")
    );
}

#[tokio::test]
async fn no_route_asks_for_more_than_it_says() {
    let stage = Stage::new().await;
    for (name, _, path, needed) in for_tokens() {
        let token = token_of(
            &stage,
            Scope::All,
            permissions(&needed.iter().copied().collect()),
        )
        .await;
        let answer = Client::new(&stage, &token)
            .ask(method(name), path, None)
            .await;
        assert!(
            ![401, 403, 405, 500, 503].contains(&answer.status),
            "{name} {path}: {answer:?}"
        );
        if answer.status == 404 {
            assert!(
                answer.problem().starts_with("unknown-"),
                "{name} {path}: {answer:?}"
            );
        }
    }
}

/// The table of roles: each person may do exactly what their one role allows, whatever the route.
#[tokio::test]
async fn every_route_lets_in_the_roles_that_it_says_and_no_other() {
    let stage = Stage::new().await;
    for role in Role::ALL {
        let person = Person::settled(&stage, role.as_str(), &[*role]).await;
        let client = person.client(&stage).await;
        for (name, _, path, needed) in for_tokens() {
            let needed = permissions(&needed.iter().copied().collect());
            let answer = client.ask(method(name), path, None).await;
            // What concerns all organisations is refused to who has a role in one.
            let is_refused = answer.status == 403;
            let of_all = (*path == "/v1/organisations" && *name == "POST")
                || path.starts_with("/v1/keys")
                || path.starts_with("/v1/backups");
            assert_eq!(
                is_refused,
                !role.permissions().include(needed) || of_all,
                "{} {name} {path}: {answer:?}",
                role.as_str()
            );
        }
    }
}

#[tokio::test]
async fn no_token_will_do_where_it_takes_a_person() {
    let stage = Stage::new().await;
    let token = token_of(&stage, Scope::All, Permissions::all()).await;
    let program = Client::new(&stage, &token);
    for (name, _, path, needed) in TABLE {
        if *needed != SESSION {
            continue;
        }
        let body = serde_json::json!({ "old": "correct horse battery", "new": "correct horse battery staple" });
        let body = match *path {
            "/v1/me/password" => Some(body),
            "/v1/me/second-factor" if *name == "POST" => {
                Some(serde_json::json!({ "password": "x" }))
            }
            "/v1/me/second-factor" => Some(serde_json::json!({ "code": "123456" })),
            _ => None,
        };
        let answer = program.ask(method(name), path, body.as_ref()).await;
        assert_eq!(
            answer.refusal(),
            (403, "person-needed".to_owned()),
            "{name} {path}"
        );
    }
}
