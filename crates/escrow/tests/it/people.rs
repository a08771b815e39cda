//! People: invited, proved, given roles, shut out; and their sessions.

use std::time::Duration;

use escrow::Error;
use escrow::people::credentials::Change;
use escrow::people::{NewPerson, PersonProblem, PersonView};
use escrow::permit::{
    Actor, Admin, Connections, OrganisationId, Permission, Permissions, Permit, Read, Refusal,
    Reveal, Role, Scope,
};
use escrow::principals::{NewToken, SecretText};
use escrow::sessions::{Claim, Origin, Rules, SignIn};
use seal::{Password, TotpSecret};
use zeroize::Zeroizing;

use crate::beside::audit_texts;
use crate::support::Vault;

const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "staple of another kind";

/// Somebody who has set their password and second factor, with their app.
pub(crate) struct Person {
    pub(crate) view: PersonView,
    app: TotpSecret,
}

fn password(text: &str) -> Password {
    Password::claimed(Zeroizing::new(text.to_owned()))
}

fn claim(login: &str, given: &str, code: Option<Zeroizing<String>>) -> Claim {
    Claim {
        login: login.to_owned(),
        password: password(given),
        code,
    }
}

fn from(address: &str) -> Origin {
    Origin {
        address: Some(address.to_owned()),
        agent: Some("a test".to_owned()),
    }
}

async fn invite(vault: &Vault, login: &str) -> (PersonView, SecretText) {
    let permit = vault.permit("people").await;
    let new = NewPerson {
        login: login.parse().unwrap(),
        name: format!("{login} by name"),
        email: None,
    };
    vault
        .escrow
        .people()
        .add(&permit, new)
        .await
        .unwrap()
        .unwrap()
}

async fn sign_in(vault: &Vault, claim: Claim) -> SignIn {
    let origin = from("192.0.2.1");
    vault
        .escrow
        .sessions()
        .sign_in(claim, origin, Rules::default())
        .await
        .unwrap()
}

async fn actor(vault: &Vault, text: &SecretText) -> Option<Actor> {
    let sessions = vault.escrow.sessions();
    sessions
        .authenticate(text.expose(), Some("192.0.2.1"), Rules::default())
        .await
        .unwrap()
}

fn text_of(sign_in: SignIn) -> SecretText {
    match sign_in {
        SignIn::In(_, text) => text,
        SignIn::Refused { .. } => panic!("refused"),
        SignIn::Wait(wait) => panic!("to wait {wait:?}"),
    }
}

fn is_refused(sign_in: &SignIn) -> bool {
    matches!(sign_in, SignIn::Refused { .. })
}

fn refusal<T>(result: escrow::Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

pub(crate) async fn set_roles(
    vault: &Vault,
    person: &str,
    roles: &[Role],
) -> Result<PersonView, PersonProblem> {
    let permit = vault.permit("people").await;
    let scope = Scope::One(vault.organisation.clone());
    vault
        .escrow
        .people()
        .set_roles(&permit, person, &scope, roles)
        .await
        .unwrap()
}

/// Invites somebody, who accepts, signs in and sets up a second factor, with these roles in the vault's organisation.
pub(crate) async fn settled(vault: &Vault, login: &str, roles: &[Role]) -> Person {
    let (view, invitation) = invite(vault, login).await;
    let credentials = vault.escrow.credentials();
    assert!(
        credentials
            .accept(invitation.expose(), password(PASSWORD), None)
            .await
            .unwrap()
    );
    let session = text_of(sign_in(vault, claim(login, PASSWORD, None)).await);
    let who = actor(vault, &session).await.unwrap();
    let Ok(app) = credentials
        .begin_second_factor(&who, password(PASSWORD))
        .await
        .unwrap()
    else {
        panic!("the password is right")
    };
    let code = app.code_at(vault.now().0 / 1000);
    assert_eq!(
        credentials.confirm_second_factor(&who, code).await.unwrap(),
        Change::Done
    );
    vault.escrow.sessions().end_own(&who, None).await.unwrap();
    // The code was used.
    vault.clock.advance(Duration::from_secs(60));
    let view = set_roles(vault, &view.id, roles)
        .await
        .unwrap_or_else(|problem| panic!("{problem}: {}", view.login));
    Person { view, app }
}

impl Person {
    pub(crate) fn code(&self, vault: &Vault) -> Zeroizing<String> {
        self.app.code_at(vault.now().0 / 1000)
    }

    /// Signs in, at a moment of its own.
    pub(crate) async fn session(&self, vault: &Vault) -> SecretText {
        vault.clock.advance(Duration::from_secs(30));
        let claim = claim(&self.view.login, PASSWORD, Some(self.code(vault)));
        text_of(sign_in(vault, claim).await)
    }

    pub(crate) async fn actor(&self, vault: &Vault) -> Actor {
        let session = self.session(vault).await;
        actor(vault, &session).await.expect("it is live")
    }
}

#[tokio::test]
async fn a_person_is_invited_proves_themselves_and_may_what_their_roles_allow() {
    let vault = Vault::new().await;
    let (view, invitation) = invite(&vault, "zoe").await;
    assert!(view.invited_until.is_some() && !view.is_settled() && view.grants.is_empty());
    assert!(
        is_refused(&sign_in(&vault, claim("zoe", "", None)).await),
        "no password is no way in"
    );
    let credentials = vault.escrow.credentials();
    assert!(
        credentials
            .accept(invitation.expose(), password(PASSWORD), None)
            .await
            .unwrap()
    );
    assert!(
        !credentials
            .accept(invitation.expose(), password(OTHER), None)
            .await
            .unwrap(),
        "an invitation is taken once"
    );
    set_roles(&vault, &view.id, &[Role::Viewer]).await.unwrap();

    let session = text_of(sign_in(&vault, claim(" ZOE ", PASSWORD, None)).await);
    let who = actor(&vault, &session).await.unwrap();
    assert_eq!(
        (who.name(), who.human()),
        ("zoe by name", Some(view.id.as_str()))
    );
    assert!(who.is_unfinished());
    let asked = vault
        .escrow
        .authorise::<Read>(&who, &vault.organisation, "devices")
        .await;
    assert!(
        matches!(refusal(asked), Refusal::Unfinished { .. }),
        "a second factor comes first"
    );

    let given = credentials
        .begin_second_factor(&who, password(OTHER))
        .await
        .unwrap();
    assert!(
        matches!(given, Err(Change::Wrong)),
        "whoever finds an open session"
    );
    let Ok(app) = credentials
        .begin_second_factor(&who, password(PASSWORD))
        .await
        .unwrap()
    else {
        panic!("the password is right")
    };
    let wrong = Zeroizing::new("000000".to_owned());
    assert_eq!(
        credentials
            .confirm_second_factor(&who, wrong)
            .await
            .unwrap(),
        Change::Wrong
    );
    let code = || app.code_at(vault.now().0 / 1000);
    assert_eq!(
        credentials
            .confirm_second_factor(&who, code())
            .await
            .unwrap(),
        Change::Done
    );
    let who = actor(&vault, &session).await.unwrap();
    assert!(!who.is_unfinished());
    vault
        .escrow
        .authorise::<Read>(&who, &vault.organisation, "devices")
        .await
        .unwrap();
    let asked = vault
        .escrow
        .authorise::<Reveal>(&who, &vault.organisation, "device")
        .await;
    assert!(matches!(
        refusal(asked),
        Refusal::Permission {
            permission: Permission::Reveal,
            ..
        }
    ));

    assert!(
        is_refused(&sign_in(&vault, claim("zoe", PASSWORD, None)).await),
        "without the second factor"
    );
    assert!(
        is_refused(&sign_in(&vault, claim("zoe", PASSWORD, Some(code()))).await),
        "with a code that was used"
    );
    vault.clock.advance(Duration::from_secs(30));
    text_of(sign_in(&vault, claim("zoe", PASSWORD, Some(code()))).await);
    for row in audit_texts(&vault).await {
        for secret in [
            PASSWORD,
            OTHER,
            invitation.expose(),
            session.expose(),
            app.text().as_str(),
        ] {
            assert!(!row.contains(secret), "a secret is on the audit trail");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_to_nobody_and_costs_time() {
    let vault = Vault::new().await;
    settled(&vault, "zoe", &[Role::Viewer]).await;
    for login in ["zoe", "nobody", "not a login at all"] {
        for _ in 0..5 {
            let answer = sign_in(&vault, claim(login, OTHER, None)).await;
            assert!(is_refused(&answer), "{login}");
        }
        let SignIn::Wait(wait) = sign_in(&vault, claim(login, OTHER, None)).await else {
            panic!("{login}: the sixth has to wait")
        };
        assert_eq!(wait, Duration::from_secs(1), "{login}");
        vault.clock.advance(wait);
        assert!(is_refused(
            &sign_in(&vault, claim(login, OTHER, None)).await
        ));
        assert!(
            matches!(sign_in(&vault, claim(login, OTHER, None)).await, SignIn::Wait(w) if w.as_secs() == 2)
        );
    }
    // Even the right one waits: who guesses learns nothing by guessing on.
    while is_refused(&sign_in(&vault, claim("zoe", OTHER, None)).await) {}
    assert!(matches!(
        sign_in(&vault, claim("zoe", PASSWORD, None)).await,
        SignIn::Wait(_)
    ));
}

#[tokio::test]
async fn many_guesses_at_once_are_not_more_than_one_after_the_other() {
    let vault = Vault::new().await;
    settled(&vault, "zoe", &[Role::Viewer]).await;
    let tries = (0..12).map(|_| sign_in(&vault, claim("zoe", OTHER, None)));
    let answers = futures_util::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|one| is_refused(one)).count(), 5);
}

#[tokio::test]
async fn an_address_that_guesses_at_many_names_waits_as_well() {
    let vault = Vault::new().await;
    for number in 0..20 {
        let answer = sign_in(&vault, claim(&format!("name{number}"), OTHER, None)).await;
        assert!(is_refused(&answer), "{number}");
    }
    assert!(matches!(
        sign_in(&vault, claim("another", OTHER, None)).await,
        SignIn::Wait(_)
    ));
    let sessions = vault.escrow.sessions();
    let elsewhere = sessions.sign_in(
        claim("another", OTHER, None),
        from("192.0.2.2"),
        Rules::default(),
    );
    assert!(is_refused(&elsewhere.await.unwrap()));
}

#[tokio::test]
async fn wrong_answers_are_forgotten_by_a_right_one_and_not_by_a_restart() {
    let mut vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    for _ in 0..4 {
        sign_in(&vault, claim("zoe", OTHER, None)).await;
    }
    zoe.session(&vault).await;
    for _ in 0..5 {
        assert!(is_refused(
            &sign_in(&vault, claim("zoe", OTHER, None)).await
        ));
    }
    vault.reopen(|_| ()).await;
    assert!(matches!(
        sign_in(&vault, claim("zoe", OTHER, None)).await,
        SignIn::Wait(_)
    ));
}

#[tokio::test]
async fn a_session_ends_when_idle_at_its_longest_and_when_it_is_ended() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Connections]).await;
    let rules = Rules::default();
    let idle = zoe.session(&vault).await;
    vault.clock.advance(rules.idle - Duration::from_secs(61));
    assert!(actor(&vault, &idle).await.is_some());
    vault.clock.advance(rules.idle - Duration::from_secs(1));
    assert!(actor(&vault, &idle).await.is_some(), "its use counted");
    vault.clock.advance(rules.idle);
    assert!(actor(&vault, &idle).await.is_none());

    let long = zoe.session(&vault).await;
    let step = rules.idle / 2;
    let mut lasted = Duration::ZERO;
    while actor(&vault, &long).await.is_some() {
        vault.clock.advance(step);
        lasted += step;
    }
    assert_eq!(lasted, rules.longest);

    let (first, second) = (zoe.session(&vault).await, zoe.session(&vault).await);
    let who = actor(&vault, &first).await.unwrap();
    let sessions = vault.escrow.sessions();
    let own = sessions.list_own(&who).await.unwrap();
    let live: Vec<_> = own.iter().filter(|one| one.is_live(vault.now())).collect();
    assert_eq!(live.len(), 2);
    assert_eq!(live[0].address.as_deref(), Some("192.0.2.1"));
    let newest = live[0].id.clone();
    assert!(sessions.end_own(&who, Some(&newest)).await.unwrap());
    assert!(!sessions.end_own(&who, Some(&newest)).await.unwrap());
    assert!(actor(&vault, &second).await.is_none() && actor(&vault, &first).await.is_some());
    // Between the check and the verb.
    let permit: Permit<Connections> = vault
        .escrow
        .authorise(&who, &vault.organisation, "connections")
        .await
        .unwrap();
    assert!(sessions.end_own(&who, None).await.unwrap());
    let removed = vault.escrow.connections().remove(&permit, "none").await;
    assert!(matches!(refusal(removed), Refusal::Revoked));
}

#[tokio::test]
async fn other_sessions_end_when_how_somebody_proves_themselves_changes() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    let (here, elsewhere) = (zoe.session(&vault).await, zoe.session(&vault).await);
    let who = actor(&vault, &here).await.unwrap();
    let credentials = vault.escrow.credentials();
    let wrong = credentials
        .change_password(&who, password(OTHER), password(OTHER))
        .await;
    assert_eq!(wrong.unwrap(), Change::Wrong);
    assert!(actor(&vault, &elsewhere).await.is_some());
    let right = credentials
        .change_password(&who, password(PASSWORD), password(OTHER))
        .await;
    assert_eq!(right.unwrap(), Change::Done);
    assert!(actor(&vault, &here).await.is_some() && actor(&vault, &elsewhere).await.is_none());
    vault.clock.advance(Duration::from_secs(60));
    assert!(is_refused(
        &sign_in(&vault, claim("zoe", PASSWORD, Some(zoe.code(&vault)))).await
    ));
    text_of(sign_in(&vault, claim("zoe", OTHER, Some(zoe.code(&vault)))).await);
}

#[tokio::test]
async fn roles_are_looked_at_again_when_they_are_used() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Connections]).await;
    let who = zoe.actor(&vault).await;
    let permit: Permit<Connections> = vault
        .escrow
        .authorise(&who, &vault.organisation, "connections")
        .await
        .unwrap();
    set_roles(&vault, &zoe.view.id, &[Role::Viewer])
        .await
        .unwrap();
    let removed = vault.escrow.connections().remove(&permit, "none").await;
    assert!(matches!(
        refusal(removed),
        Refusal::Permission {
            permission: Permission::Connections,
            ..
        }
    ));
}

#[tokio::test]
async fn who_is_shut_out_and_their_tokens_open_nothing() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Admin, Role::Viewer]).await;
    let who = zoe.actor(&vault).await;
    let permit: Permit<Admin> = vault
        .escrow
        .authorise(&who, &vault.organisation, "tokens")
        .await
        .unwrap();
    let new = NewToken {
        name: "a token of hers".to_owned(),
        scope: Scope::One(vault.organisation.clone()),
        permissions: Permissions::of(&[Permission::Read, Permission::Admin]),
        expires_at: None,
    };
    let principals = vault.escrow.principals();
    let (token, text) = principals.create_token(&permit, new).await.unwrap();
    assert_eq!(token.owner.as_deref(), Some(zoe.view.id.as_str()));
    let program = principals
        .authenticate(text.expose(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(program.human(), Some(zoe.view.id.as_str()));
    let of_token: Permit<Admin> = vault
        .escrow
        .authorise(&program, &vault.organisation, "tokens")
        .await
        .unwrap();

    // It loses with her what she loses.
    set_roles(&vault, &zoe.view.id, &[Role::Viewer])
        .await
        .unwrap();
    let now = principals
        .authenticate(text.expose(), None)
        .await
        .unwrap()
        .unwrap();
    assert!(!now.grants().somewhere().allow(Permission::Admin));
    assert!(now.grants().somewhere().allow(Permission::Read));
    assert!(matches!(
        refusal(principals.revoke_token(&of_token, "none").await),
        Refusal::Permission { .. }
    ));

    let session = zoe.session(&vault).await;
    let owner = vault.permit("people").await;
    let view = vault
        .escrow
        .people()
        .set_disabled(&owner, &zoe.view.id, true)
        .await
        .unwrap()
        .unwrap();
    assert!(view.disabled_at.is_some());
    assert!(
        principals
            .authenticate(text.expose(), None)
            .await
            .unwrap()
            .is_none()
    );
    assert!(actor(&vault, &session).await.is_none());
    let right = claim("zoe", PASSWORD, Some(zoe.code(&vault)));
    assert!(is_refused(&sign_in(&vault, right).await));
    vault
        .escrow
        .people()
        .set_disabled(&owner, &zoe.view.id, false)
        .await
        .unwrap()
        .unwrap();
    zoe.session(&vault).await;
}

#[tokio::test]
async fn a_role_that_opens_codes_is_for_those_who_have_proved_themselves() {
    let vault = Vault::new().await;
    let boss = settled(&vault, "boss", &[Role::Admin]).await;
    let who = boss.actor(&vault).await;
    let permit: Permit<Admin> = vault
        .escrow
        .authorise(&who, &vault.organisation, "people")
        .await
        .unwrap();
    let (ghost, _) = invite(&vault, "ghost").await;
    let scope = Scope::One(vault.organisation.clone());
    let people = vault.escrow.people();
    for role in Role::ALL {
        let given = people
            .set_roles(&permit, &ghost.id, &scope, &[*role])
            .await
            .unwrap();
        assert_eq!(
            matches!(given, Err(PersonProblem::Unsettled { .. })),
            role.opens_codes(),
            "{role:?}"
        );
    }
}

#[tokio::test]
async fn nobody_manages_people_beyond_their_organisation() {
    let vault = Vault::new().await;
    let boss = settled(&vault, "boss", &[Role::Admin]).await;
    let who = boss.actor(&vault).await;
    let permit: Permit<Admin> = vault
        .escrow
        .authorise(&who, &vault.organisation, "people")
        .await
        .unwrap();
    let people = vault.escrow.people();
    let all = people
        .set_roles(&permit, &boss.view.id, &Scope::All, &[Role::Viewer])
        .await;
    assert!(matches!(refusal(all), Refusal::Organisation { .. }));
    let elsewhere = Scope::One(OrganisationId::new("another"));
    let other = people
        .set_roles(&permit, &boss.view.id, &elsewhere, &[Role::Viewer])
        .await;
    assert!(matches!(refusal(other), Refusal::Organisation { .. }));

    // Who may do something elsewhere is not theirs to reset: they could act as them there.
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    let owner = vault.permit("people").await;
    people
        .set_roles(&owner, &zoe.view.id, &Scope::All, &[Role::Auditor])
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        refusal(people.reset(&permit, &zoe.view.id).await),
        Refusal::Organisation { .. }
    ));
    let disabled = people.set_disabled(&permit, &zoe.view.id, true).await;
    assert!(matches!(refusal(disabled), Refusal::Organisation { .. }));
}

#[tokio::test]
async fn somebody_is_left_who_manages_people() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[]).await;
    let owner = vault.permit("people").await;
    let people = vault.escrow.people();
    people
        .set_roles(&owner, &zoe.view.id, &Scope::All, &[Role::Admin])
        .await
        .unwrap()
        .unwrap();
    let last = people
        .set_roles(&owner, &zoe.view.id, &Scope::All, &[])
        .await
        .unwrap();
    assert_eq!(last, Err(PersonProblem::LastAdmin));
    let last = people
        .set_disabled(&owner, &zoe.view.id, true)
        .await
        .unwrap();
    assert_eq!(last, Err(PersonProblem::LastAdmin));
    let max = settled(&vault, "max", &[]).await;
    people
        .set_roles(&owner, &max.view.id, &Scope::All, &[Role::Admin])
        .await
        .unwrap()
        .unwrap();
    people
        .set_disabled(&owner, &zoe.view.id, true)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn who_is_reset_proves_themselves_anew() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Viewer]).await;
    let session = zoe.session(&vault).await;
    let owner = vault.permit("people").await;
    let people = vault.escrow.people();
    let (view, invitation) = people.reset(&owner, &zoe.view.id).await.unwrap().unwrap();
    assert!(view.invited_until.is_some() && !view.is_settled());
    assert_eq!(view.grants.len(), 1, "roles stay");
    assert!(actor(&vault, &session).await.is_none());
    let right = claim("zoe", PASSWORD, Some(zoe.code(&vault)));
    assert!(is_refused(&sign_in(&vault, right).await));
    vault.clock.advance(Duration::from_secs(7 * 86_400));
    let credentials = vault.escrow.credentials();
    assert!(
        !credentials
            .accept(invitation.expose(), password(OTHER), None)
            .await
            .unwrap(),
        "an invitation has an end"
    );
    let taken = people.add(
        &owner,
        NewPerson {
            login: "ZOE".parse().unwrap(),
            name: "Another".to_owned(),
            email: None,
        },
    );
    assert!(matches!(
        taken.await.unwrap(),
        Err(PersonProblem::LoginTaken(_))
    ));
    assert_eq!(
        people.find(&owner, "Zoe").await.unwrap().unwrap().id,
        zoe.view.id
    );
}

#[tokio::test]
async fn who_manages_people_sees_their_sessions_and_ends_them() {
    let vault = Vault::new().await;
    let zoe = settled(&vault, "zoe", &[Role::Connections]).await;
    let session = zoe.session(&vault).await;
    let permit: Permit<Admin> = vault.permit("people").await;
    let sessions = vault.escrow.sessions();
    let live = async || {
        let listed = sessions.list_of(&permit, &zoe.view).await.unwrap();
        listed.iter().filter(|one| one.is_live(vault.now())).count()
    };
    let before = live().await;
    assert!(before > 0);
    sessions.end_all_of(&permit, &zoe.view).await.unwrap();
    assert_eq!(live().await, 0);
    assert!(actor(&vault, &session).await.is_none());
    // What ended long ago is forgotten, and whoever was made to wait is not any more.
    let people = vault.escrow.people();
    assert_eq!(people.count().await.unwrap(), 1);
    assert!(is_refused(
        &sign_in(&vault, claim("zoe", "wrong", None)).await
    ));
    vault.clock.advance(Duration::from_secs(400 * 86_400));
    sessions.sweep().await.unwrap();
    let listed = sessions.list_of(&permit, &zoe.view).await.unwrap();
    assert!(listed.is_empty());
}

#[tokio::test]
async fn an_address_that_asks_a_provider_again_and_again_waits() {
    let vault = Vault::new().await;
    let sessions = vault.escrow.sessions();
    let mut tries = 0;
    while sessions
        .begin_with_provider(Some("192.0.2.7"))
        .await
        .unwrap()
        .is_none()
    {
        tries += 1;
        assert!(tries < 1_000, "it is made to wait at last");
    }
    assert!(tries > 0);
    let other = sessions.begin_with_provider(Some("192.0.2.8")).await;
    assert_eq!(other.unwrap(), None, "others are not");
}
