//! The audit record over the API, and what of it goes outside.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use escrow::audit::AuditFilter;
use escrow::permit::{Audit, OrganisationId, Permission, Permissions, Permit, Scope};
use serde_json::json;
use server::Outside;
use tokio::net::{TcpListener, UnixDatagram};

use super::*;
use crate::support::{CODE_A, Options};

const STEP: Duration = Duration::from_secs(5);

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// Takes what is posted to it.
async fn webhook() -> (String, Arc<Mutex<Vec<String>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let keep = taken.clone();
    let router = Router::new().route(
        "/checkpoints",
        post(async move |body: String| keep.lock().unwrap().push(body)),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/checkpoints", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, taken)
}

#[tokio::test]
async fn the_record_goes_outside_and_what_went_there_proves_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (address, posted) = webhook().await;
    let syslog = UnixDatagram::bind(at("log")).unwrap();
    let mut stage = Stage::with(Options {
        outside: Outside {
            checkpoint_file: Some(at("checkpoints")),
            checkpoint_webhook: Some(address.parse().unwrap()),
            syslog: Some(at("log").to_str().unwrap().parse().unwrap()),
            stream_file: Some(at("rows")),
            stream_syslog: true,
        },
        ..Options::default()
    })
    .await;
    stage.type_code("SIM1", CODE_A).await;
    let mut heard = Vec::new();
    let listen = |heard: &mut Vec<String>| {
        let mut buffer = vec![0; 100_000];
        while let Ok(length) = syslog.try_recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    };
    stage
        .until_in_steps("a checkpoint of the typed code", STEP, async || {
            listen(&mut heard);
            let rows = lines(&at("rows"));
            let typed = rows.iter().find(|row| row.contains("code.typed"));
            let last = lines(&at("checkpoints")).pop();
            typed.zip(last).is_some_and(|(typed, last)| {
                let position = json_of(typed)["position"].as_u64();
                json_of(&last)["checkpoint"]["position"].as_u64() >= position
            })
        })
        .await;
    let auditor = Client::with(&stage, &["audit"]).await;
    let last = lines(&at("checkpoints")).pop().unwrap();
    let escaped: String = url::form_urlencoded::byte_serialize(last.as_bytes()).collect();
    let found = auditor
        .get(&format!("/v1/audit/verify?checkpoint={escaped}"))
        .await
        .json();
    // The auditor's token was made after it.
    assert_eq!(
        (&found["verdict"], &found["bad"]),
        (&json!("unproven"), &Value::Null)
    );
    assert!(found["proven_until"].is_string() && found["unproven"].as_u64() > Some(0));
    let kept = auditor.get("/v1/audit/checkpoints?limit=1").await.json();
    assert!(kept["items"][0]["checkpoint"]["link"].is_string());
    assert!(
        kept["public_keys"][0]
            .as_str()
            .unwrap()
            .starts_with("lockwarden-checkpoint-public-1:")
    );

    stage.stop().await;
    listen(&mut heard);
    let checkpoints = lines(&at("checkpoints"));
    let posted = posted.lock().unwrap().clone();
    assert!(posted.contains(checkpoints.last().unwrap()));
    let last = checkpoints.last().unwrap();
    assert!(
        heard
            .iter()
            .any(|line| line.contains(" audit-checkpoint - {"))
    );
    assert!(
        heard
            .iter()
            .any(|line| line.contains(" audit-row - {") && line.contains("code.typed"))
    );
    let rows = lines(&at("rows"));
    let positions: Vec<_> = rows
        .iter()
        .map(|row| json_of(row)["position"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        json_of(last)["checkpoint"]["position"].as_u64(),
        positions.last().copied(),
        "at the end everything is sealed, signed and outside"
    );
    let vault = stage.vault().await;
    let mut verifier = vault.audit().verifier();
    assert_eq!(verifier.record().await.unwrap(), None);
    assert_eq!(verifier.compare(1, checkpoints).await.unwrap(), None);
    let verified = verifier.verified();
    assert!(verified.is_proven(), "{verified}");
    vault.close().await;
}

#[tokio::test]
async fn a_place_that_takes_nothing_is_seen_and_does_not_stop_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let stage = Stage::with(Options {
        outside: Outside {
            checkpoint_file: Some(at("nowhere/checkpoints")),
            checkpoint_webhook: Some("http://127.0.0.1:1/checkpoints".parse().unwrap()),
            stream_file: Some(at("rows")),
            ..Outside::default()
        },
        ..Options::default()
    })
    .await;
    stage.type_code("SIM1", CODE_A).await;
    let audit = stage.escrow().audit();
    stage
        .until_in_steps("both to have failed", STEP, async || {
            let known = audit.outlets().await.unwrap();
            let failing = known.iter().filter(|one| one.failing_since.is_some());
            failing.count() == 2 && !lines(&at("rows")).is_empty()
        })
        .await;
    let metrics = Client::new(&stage, "").get("/metrics").await;
    assert!(metrics.text().contains(
        "lockwarden_audit_outside_total{place=\"checkpoint file\",result=\"not_taken\"}"
    ));
    // Once the folder is there it goes on.
    std::fs::create_dir(at("nowhere")).unwrap();
    stage
        .until_in_steps("the file to take one", STEP, async || {
            let known = audit.outlets().await.unwrap();
            let file = known.iter().find(|one| one.name == "checkpoint file");
            file.is_some_and(|one| one.failing_since.is_none() && one.sent_at.is_some())
        })
        .await;
    assert_eq!(stage.reveal("SIM1").await.len(), 1);
}

#[tokio::test]
async fn a_flood_of_refusals_is_one_row_and_none_is_forgotten_at_the_end() {
    let mut stage = Stage::new().await;
    for _ in 0..20 {
        let nobody = Client::new(&stage, "lw_token_nonsense");
        assert_eq!(nobody.get("/v1/devices").await.status, 401);
        let hook = nobody.post("/v1/hooks/mdm", json!({})).await;
        assert_eq!(hook.status, 401);
    }
    stage.stop().await;
    let vault = stage.vault().await;
    let everywhere = OrganisationId::new("*");
    let permit: Permit<Audit> = vault
        .authorise(&stage.actor, &everywhere, "audit")
        .await
        .unwrap();
    let refused = AuditFilter {
        result: Some("unauthenticated".to_owned()),
        ..AuditFilter::default()
    };
    let rows = vault
        .audit()
        .list(&permit, &refused, None, 10)
        .await
        .unwrap();
    let told: Vec<_> = rows.iter().map(|row| json_of(&row.text)).collect();
    let count = |kind: &str| -> u64 {
        let all = told
            .iter()
            .flat_map(|row| row["details"]["refusals"].as_array().unwrap());
        all.filter(|one| one["kind"] == kind && one["address"] == "127.0.0.1")
            .map(|one| one["count"].as_u64().unwrap())
            .sum()
    };
    assert!(rows.len() <= 2, "{} rows", rows.len());
    assert_eq!((count("token"), count("webhook")), (20, 20));
    vault.close().await;
}

#[tokio::test]
async fn the_record_is_given_out_whole_and_by_filter() {
    let stage = Stage::new().await;
    for number in 1..=3 {
        stage.type_code(&format!("SIM{number}"), CODE_A).await;
    }
    let auditor = Client::with(&stage, &["audit"]).await;
    let exported = auditor.get("/v1/audit/export").await;
    assert_eq!(
        exported.header("content-type"),
        Some("application/x-ndjson")
    );
    let rows: Vec<_> = exported.text().lines().map(json_of).collect();
    let last = rows.last().unwrap();
    assert_eq!(last["text"]["action"], "audit.export");
    assert!(rows.iter().all(|row| row["intact"] == "yes"));
    let typed = |rows: &[Value]| {
        let typed = rows.iter().filter(|r| r["text"]["action"] == "code.typed");
        typed.count()
    };
    assert_eq!(typed(&rows), 3);
    let one = auditor
        .get("/v1/audit/export?action=code.typed&subject=SIM2&result=ok&since=2026-01-01T00:00:00Z")
        .await;
    let rows: Vec<_> = one.text().lines().map(json_of).collect();
    assert_eq!((rows.len(), typed(&rows)), (1, 1));
    let none = auditor
        .get("/v1/audit?until=2026-01-01T00:00:00%2B01:00")
        .await
        .json();
    assert_eq!(none["items"], json!([]));
    let bad = auditor.get("/v1/audit/export?since=yesterday").await;
    assert_eq!(bad.refusal(), (400, "bad-request".to_owned()));
    // An administrator still reads it, and whoever may do everything else does not.
    let other = Client::with(&stage, &["read", "unlock", "connections"]).await;
    assert_eq!(other.get("/v1/audit/export").await.status, 403);
    let admin = Client::with(&stage, &["admin"]).await;
    assert_eq!(admin.get("/v1/audit").await.status, 200);
}

#[tokio::test]
async fn what_concerns_no_single_organisation_is_for_those_of_all() {
    let stage = Stage::new().await;
    let audit = Permissions::of(&[Permission::Audit]);
    let all = Client::new(&stage, &token_of(&stage, Scope::All, audit).await);
    let one = Scope::One(stage.organisation.clone());
    let one = Client::new(&stage, &token_of(&stage, one, audit).await);
    assert_eq!(all.get("/v1/audit?organisation=*").await.status, 200);
    let refused = one.get("/v1/audit?organisation=*").await;
    assert_eq!(refused.refusal(), (404, "unknown-organisation".to_owned()));
}
