//! Who may do what: tokens, permits, connections and certificates.

use std::time::Duration;

use escrow::Error;
use escrow::connections::{
    ConnectionKind, ConnectionProblem, HookAuth, HookProof, NewConnection, UnlockVia,
};
use escrow::organisations::Created;
use escrow::permit::{
    Actor, Admin, Connections, OrganisationId, Permission, Permissions, Permit, Read, Refusal,
    Reveal, Scope,
};
use escrow::principals::{NewToken, SecretText, TokenView};
use escrow::push_certificates::NewPushCertificate;
use subtle::ConstantTimeEq;

use crate::beside::{audit_texts, damage};
use crate::support::Vault;

mod revoked;

async fn token(vault: &Vault, scope: &str) -> (TokenView, SecretText) {
    let permit = vault.permit("token").await;
    let new = NewToken {
        name: format!("a {scope} token"),
        scope: Scope::One(vault.organisation.clone()),
        permissions: Permissions::of_scope(scope).unwrap(),
        expires_at: Some(vault.now().plus(Duration::from_secs(3600))),
    };
    vault
        .escrow
        .principals()
        .create_token(&permit, new)
        .await
        .unwrap()
}

async fn actor(vault: &Vault, text: &SecretText) -> Actor {
    vault
        .escrow
        .principals()
        .authenticate(text.expose(), Some("192.0.2.1"))
        .await
        .unwrap()
        .expect("it is valid")
}

fn refusal<T>(result: escrow::Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

#[tokio::test]
async fn a_token_is_its_principal_until_it_expires_or_is_revoked() {
    let vault = Vault::new().await;
    let (view, text) = token(&vault, "read").await;
    let who = actor(&vault, &text).await;
    assert_eq!(
        (who.principal(), who.name()),
        (view.principal.as_str(), "a read token")
    );
    assert_eq!(who.proof().to_string(), format!("token {}", view.id));
    assert_eq!(who.address(), Some("192.0.2.1"));
    assert!(
        who.grants().somewhere().allow(Permission::Read)
            && !who.grants().somewhere().allow(Permission::Unlock)
    );

    let (_, never_made) = token(&Vault::new().await, "read").await;
    let other = never_made.expose().to_owned();
    if other != text.expose() {
        assert!(
            vault
                .escrow
                .principals()
                .authenticate(&other, None)
                .await
                .unwrap()
                .is_none()
        );
    }
    let permit: Permit<Admin> = vault.permit("token").await;
    assert!(
        vault
            .escrow
            .principals()
            .revoke_token(&permit, &view.id)
            .await
            .unwrap()
    );
    assert!(
        !vault
            .escrow
            .principals()
            .revoke_token(&permit, &view.id)
            .await
            .unwrap()
    );
    assert!(
        vault
            .escrow
            .principals()
            .authenticate(text.expose(), None)
            .await
            .unwrap()
            .is_none()
    );

    let (_, text) = token(&vault, "read").await;
    vault.clock.advance(Duration::from_secs(3600));
    assert!(
        vault
            .escrow
            .principals()
            .authenticate(text.expose(), None)
            .await
            .unwrap()
            .is_none()
    );
    let listed = vault
        .escrow
        .principals()
        .list_tokens(&permit)
        .await
        .unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|t| !t.is_valid(vault.now())));
    for row in audit_texts(&vault).await {
        assert!(
            !row.contains(text.expose()),
            "a token is on the audit trail"
        );
    }
}

#[tokio::test]
async fn a_use_is_noted_at_most_every_ten_minutes() {
    let vault = Vault::new().await;
    let (view, text) = token(&vault, "read").await;
    let noted = async || {
        let permit: Permit<Admin> = vault.permit("token").await;
        vault
            .escrow
            .principals()
            .list_tokens(&permit)
            .await
            .unwrap()[0]
            .used_at
    };
    assert_eq!(noted().await, None);
    actor(&vault, &text).await;
    let first = vault.now();
    assert_eq!(noted().await, Some(first));
    vault.clock.advance(Duration::from_secs(599));
    actor(&vault, &text).await;
    assert_eq!(noted().await, Some(first));
    vault.clock.advance(Duration::from_secs(1));
    actor(&vault, &text).await;
    assert_eq!(noted().await, Some(vault.now()));
    assert_eq!(view.used_at, None);
}

#[tokio::test]
async fn what_is_not_permitted_is_refused_and_audited() {
    let vault = Vault::new().await;
    let (_, text) = token(&vault, "admin").await;
    let who = actor(&vault, &text).await;
    let refused = refusal(
        vault
            .escrow
            .authorise::<Reveal>(&who, &vault.organisation, "device X")
            .await,
    );
    assert!(matches!(
        refused,
        Refusal::Permission {
            permission: Permission::Reveal,
            ..
        }
    ));
    let elsewhere = OrganisationId::new("elsewhere");
    let refused = refusal(
        vault
            .escrow
            .authorise::<Read>(&who, &elsewhere, "device X")
            .await,
    );
    assert!(matches!(refused, Refusal::Organisation { .. }));
    let rows = audit_texts(&vault).await;
    let refusals = rows
        .iter()
        .filter(|r| r.contains("\"action\":\"refused\""))
        .count();
    assert_eq!(refusals, 2);
}

#[tokio::test]
async fn a_token_revoked_between_the_check_and_the_verb_opens_nothing() {
    let vault = Vault::new().await;
    let (view, text) = token(&vault, "admin").await;
    let who = actor(&vault, &text).await;
    let held: Permit<Admin> = vault
        .escrow
        .authorise(&who, &vault.organisation, "policy")
        .await
        .unwrap();
    let permit: Permit<Admin> = vault.permit("token").await;
    vault
        .escrow
        .principals()
        .revoke_token(&permit, &view.id)
        .await
        .unwrap();
    let done = vault
        .escrow
        .organisations()
        .set_user_lock(&held, "allow".parse().unwrap())
        .await;
    assert_eq!(refusal(done), Refusal::Revoked);
    let organisation = vault
        .escrow
        .organisations()
        .find(&vault.actor, "Example School")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        organisation.user_lock.as_str(),
        "leave",
        "nothing was changed"
    );
    assert!(
        audit_texts(&vault)
            .await
            .iter()
            .any(|r| r.contains("\"result\":\"revoked\""))
    );
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let vault = Vault::new().await;
    let (_, text) = token(&vault, "admin").await;
    let who = actor(&vault, &text).await;
    let permit: Permit<Admin> = vault
        .escrow
        .authorise(&who, &vault.organisation, "token")
        .await
        .unwrap();
    let new = |scope: Scope, permissions: &str| NewToken {
        name: "greedy".to_owned(),
        scope,
        permissions: Permissions::of_scope(permissions).unwrap(),
        expires_at: None,
    };
    let here = Scope::One(vault.organisation.clone());
    let made = vault
        .escrow
        .principals()
        .create_token(&permit, new(here.clone(), "reveal"))
        .await;
    assert!(matches!(
        refusal(made),
        Refusal::Beyond {
            permission: Permission::Reveal,
            ..
        }
    ));
    let made = vault
        .escrow
        .principals()
        .create_token(&permit, new(Scope::All, "read"))
        .await;
    assert!(matches!(refusal(made), Refusal::Organisation { .. }));
    assert!(
        vault
            .escrow
            .principals()
            .create_token(&permit, new(here, "read"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn r5_an_actor_sees_its_own_organisation_alone() {
    let vault = Vault::new().await;
    let second = vault
        .escrow
        .organisations()
        .create(&vault.actor, "Another School")
        .await
        .unwrap();
    let Created::New(second) = second else {
        panic!("it is new")
    };
    let taken = vault
        .escrow
        .organisations()
        .create(&vault.actor, "Another School")
        .await
        .unwrap();
    assert_eq!(taken, Created::NameTaken);
    let (_, text) = token(&vault, "admin").await;
    let who = actor(&vault, &text).await;
    let names: Vec<String> = vault
        .escrow
        .organisations()
        .list(&who)
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.name)
        .collect();
    assert_eq!(names, ["Example School"]);
    assert!(
        vault
            .escrow
            .organisations()
            .find(&who, second.id.as_str())
            .await
            .unwrap()
            .is_none()
    );
    refusal(vault.escrow.organisations().create(&who, "Mine").await);
}

fn mdm(name: &str, hook_auth: HookAuth, base_url: &str) -> NewConnection {
    NewConnection {
        name: name.to_owned(),
        kind: ConnectionKind::NanoHub,
        base_url: base_url.to_owned(),
        path_prefix: "/api/v1/nanomdm".to_owned(),
        username: "nanohub".to_owned(),
        api_key: "a key for the MDM".to_owned().into(),
        hook_auth,
        hmac_secret: Some("the first secret".to_owned().into()),
        unlock_via: UnlockVia::Own,
        max_rate: None,
    }
}

async fn secrets(vault: &Vault, name: &str) -> Vec<Vec<u8>> {
    match vault
        .escrow
        .connections()
        .for_hook(name)
        .await
        .unwrap()
        .expect("it is there")
        .proof
    {
        HookProof::Hmac(secrets) => secrets.into_iter().map(|s| s.to_vec()).collect(),
        HookProof::Path(_) => panic!("it signs"),
    }
}

#[tokio::test]
async fn r22_two_secrets_are_live_during_a_rotation() {
    let vault = Vault::new().await;
    let permit: Permit<Connections> = vault.permit("connection").await;
    let connections = vault.escrow.connections();
    let new = mdm("campus", HookAuth::Hmac, "https://mdm.example.org/");
    let (view, shown) = connections.add(&permit, new).await.unwrap().unwrap();
    assert!(
        shown.is_none(),
        "a secret that was brought is not shown again"
    );
    assert_eq!(view.base_url, "https://mdm.example.org");
    assert!(secrets(&vault, "campus").await == [b"the first secret".to_vec()]);

    let made = connections
        .rotate_secret(&permit, "campus", None)
        .await
        .unwrap()
        .unwrap()
        .expect("made here");
    let live = secrets(&vault, "campus").await;
    assert!(
        live == [
            made.expose().as_bytes().to_vec(),
            b"the first secret".to_vec()
        ]
    );
    connections
        .retire_previous_secret(&permit, "campus")
        .await
        .unwrap()
        .unwrap();
    assert!(secrets(&vault, "campus").await == [made.expose().as_bytes().to_vec()]);
    let read: Permit<Read> = vault.permit("connection").await;
    assert_eq!(
        connections
            .get(&read, "campus")
            .await
            .unwrap()
            .unwrap()
            .version,
        3
    );

    let opened = connections.open(&view.id).await.unwrap().unwrap();
    assert!(opened.api_key.as_str() == "a key for the MDM");
    connections
        .remove(&permit, "campus")
        .await
        .unwrap()
        .unwrap();
    assert!(connections.for_hook("campus").await.unwrap().is_none());
    assert!(connections.open(&view.id).await.unwrap().is_none());
    let again = connections
        .add(
            &permit,
            mdm("campus", HookAuth::Hmac, "https://mdm.example.org"),
        )
        .await
        .unwrap();
    assert!(again.is_ok(), "the name is free again");
}

#[tokio::test]
async fn r22_a_path_secret_is_made_here_and_kept_as_a_hash() {
    let vault = Vault::new().await;
    let permit: Permit<Connections> = vault.permit("connection").await;
    let new = mdm("campus", HookAuth::Path, "https://mdm.example.org");
    let (_, shown) = vault
        .escrow
        .connections()
        .add(&permit, new)
        .await
        .unwrap()
        .unwrap();
    let shown = shown.expect("it is shown once");
    let hook = vault
        .escrow
        .connections()
        .for_hook("campus")
        .await
        .unwrap()
        .unwrap();
    let HookProof::Path(hashes) = &hook.proof else {
        panic!("it has a path secret")
    };
    assert!(bool::from(
        hashes[0].ct_eq(&seal::TokenHash::of(shown.expose()))
    ));
    let who = hook.actor(None);
    assert!(
        who.grants().somewhere().allow(Permission::Record)
            && !who.grants().somewhere().allow(Permission::Read)
    );
}

#[tokio::test]
async fn r19_a_connection_needs_https_and_a_permission_of_its_own() {
    let vault = Vault::new().await;
    let permit: Permit<Connections> = vault.permit("connection").await;
    let connections = vault.escrow.connections();
    for (name, url, problem) in [
        (
            "campus",
            "http://mdm.example.org",
            ConnectionProblem::NotHttps,
        ),
        ("Campus", "https://mdm.example.org", ConnectionProblem::Name),
        ("a/b", "https://mdm.example.org", ConnectionProblem::Name),
    ] {
        let Err(found) = connections
            .add(&permit, mdm(name, HookAuth::Hmac, url))
            .await
            .unwrap()
        else {
            panic!("{name} {url} was taken")
        };
        assert_eq!(found, problem);
    }
    connections
        .add(
            &permit,
            mdm("campus", HookAuth::Hmac, "https://mdm.example.org"),
        )
        .await
        .unwrap()
        .unwrap();
    let again = connections
        .add(
            &permit,
            mdm("campus", HookAuth::Hmac, "https://mdm.example.org"),
        )
        .await
        .unwrap();
    assert!(matches!(again, Err(ConnectionProblem::NameTaken)));
    let (_, text) = token(&vault, "admin").await;
    let who = actor(&vault, &text).await;
    refusal(
        vault
            .escrow
            .authorise::<Connections>(&who, &vault.organisation, "connection campus")
            .await,
    );
}

#[tokio::test]
async fn a_renewed_push_certificate_takes_the_place_of_its_topic() {
    let vault = Vault::new().await;
    let permit: Permit<Connections> = vault.permit("push certificate").await;
    let certificates = vault.escrow.push_certificates();
    let new = |fingerprint: &str| NewPushCertificate {
        topic: "com.apple.mgmt.External.test".to_owned(),
        fingerprint: fingerprint.to_owned(),
        subject: "a test".to_owned(),
        not_before: vault.now(),
        not_after: vault.now().plus(Duration::from_secs(60)),
        pem: format!("key of {fingerprint}").into(),
    };
    let first = certificates.add(&permit, new("aa")).await.unwrap();
    assert_eq!(
        certificates.add(&permit, new("aa")).await.unwrap().id,
        first.id,
        "the same again is no change"
    );
    let second = certificates.add(&permit, new("bb")).await.unwrap();
    let current = certificates.all_current().await.unwrap();
    assert_eq!(
        current.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
        [second.id.as_str()]
    );
    let read: Permit<Read> = vault.permit("push certificate").await;
    assert_eq!(
        certificates.list(&read).await.unwrap().len(),
        2,
        "the older row stays"
    );
    let open = certificates
        .open(&vault.organisation, "com.apple.mgmt.External.test")
        .await
        .unwrap()
        .unwrap();
    assert!(open.pem.as_str() == "key of bb");
    assert!(
        open.view.is_usable(vault.now())
            && !open
                .view
                .is_usable(vault.now().plus(Duration::from_secs(60)))
    );
    assert!(certificates.remove(&permit, &second.id).await.unwrap());
    assert!(!certificates.remove(&permit, &second.id).await.unwrap());
    assert!(
        certificates
            .open_by_id(&vault.organisation, &second.id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(certificates.all_current().await.unwrap().is_empty());
}

#[tokio::test]
async fn t34_no_token_key_or_secret_lies_open_in_the_data_folder() {
    let vault = Vault::in_a_file().await;
    let (_, token) = token(&vault, "read").await;
    actor(&vault, &token).await;
    let permit: Permit<Connections> = vault.permit("far ends").await;
    let signed = mdm("signed", HookAuth::Hmac, "https://mdm.example.org");
    let path = mdm("path", HookAuth::Path, "https://mdm.example.org");
    let connections = vault.escrow.connections();
    connections.add(&permit, signed).await.unwrap().unwrap();
    let made = connections.rotate_secret(&permit, "signed", None).await;
    let made = made.unwrap().unwrap().expect("made here");
    let (_, in_path) = connections.add(&permit, path).await.unwrap().unwrap();
    let new = NewPushCertificate {
        topic: "com.apple.mgmt.External.test".to_owned(),
        fingerprint: "aa".to_owned(),
        subject: "a test".to_owned(),
        not_before: vault.now(),
        not_after: vault.now(),
        pem: "PRIVATE PART OF A KEY".to_owned().into(),
    };
    vault
        .escrow
        .push_certificates()
        .add(&permit, new)
        .await
        .unwrap();

    let in_path = in_path.expect("it is shown once");
    let secrets = [
        token.expose(),
        made.expose(),
        in_path.expose(),
        "a key for the MDM",
        "the first secret",
        "PRIVATE PART OF A KEY",
    ];
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(vault.escrow.folder()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap_or_default());
    }
    let holds = |text: &str| {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(
        holds("com.apple.mgmt.External.test"),
        "the files that hold the rows were read"
    );
    for (n, secret) in secrets.iter().enumerate() {
        assert!(!holds(secret), "secret {n} lies open");
    }
}
