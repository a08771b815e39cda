//! Ways around an approval, each of them closed; and what one may do without any.

use std::time::Duration;

use escrow::approvals::{Action, Leave, Policy, PolicyProblem, Unfit};
use escrow::connections::{ConnectionKind, HookAuth, NewConnection, UnlockVia};
use escrow::permit::{Admin, Connections, Permission, Permit, Refusal, Reveal, Role, Scope};

use super::{SERIAL, Shop, needed, one, refusal, serial, unfit};
use crate::people::settled;
use crate::support::{CODE_A, Vault};

/// The list of the threat model: what a person with `admin` alone tries where a policy asks for approval.
#[tokio::test]
async fn who_only_manages_people_and_policies_obtains_no_code() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let vault = &shop.vault;
    let escrow = &vault.escrow;
    let admin = shop.admin.actor(vault).await;
    let permit: Permit<Admin> = escrow
        .authorise(&admin, &vault.organisation, "people")
        .await
        .unwrap();
    let scope = Scope::One(vault.organisation.clone());
    let people = escrow.people();

    let seen = shop.reveal_as(&admin, SERIAL, Leave::Plain).await;
    assert!(matches!(
        refusal(seen),
        Refusal::Permission {
            permission: Permission::Reveal,
            ..
        }
    ));
    // A role for themselves.
    for role in [
        Role::Revealer,
        Role::Approver,
        Role::Connections,
        Role::BreakGlass,
    ] {
        let given = people
            .set_roles(&permit, &shop.admin.view.id, &scope, &[Role::Admin, role])
            .await;
        assert_eq!(needed(given), Action::People, "{role:?}");
    }
    // In all organisations, or in one of their own making.
    let wider = people
        .set_roles(&permit, &shop.admin.view.id, &Scope::All, &[Role::Revealer])
        .await;
    assert!(matches!(refusal(wider), Refusal::Organisation { .. }));
    // A second account of theirs.
    let ghost = settled(vault, "ghost", &[]).await;
    let given = people
        .set_roles(&permit, &ghost.view.id, &scope, &[Role::Revealer])
        .await;
    assert_eq!(needed(given), Action::People);
    // Whoever has the role, to act as them.
    assert_eq!(
        needed(people.reset(&permit, &shop.desk.view.id).await),
        Action::People
    );
    assert_eq!(
        needed(people.reset(&permit, &shop.max.view.id).await),
        Action::People
    );
    people
        .set_disabled(&permit, &shop.ann.view.id, true)
        .await
        .unwrap()
        .unwrap();
    let back = people.set_disabled(&permit, &shop.ann.view.id, false).await;
    assert_eq!(needed(back), Action::People);
    // A policy that is loosened and set back.
    let policies = escrow.policies();
    for looser in [
        Policy::default(),
        Policy {
            self_approval: true,
            ..one()
        },
        Policy {
            use_within: Duration::from_secs(86_400),
            ..one()
        },
    ] {
        let set = policies.set(&permit, Action::Reveal, looser).await;
        assert_eq!(needed(set), Action::Policies);
    }
    // Tightening needs none; and does not lend anything to what is loosened next.
    policies
        .set(&permit, Action::Unlock, one())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        needed(
            policies
                .set(&permit, Action::Unlock, Policy::default())
                .await
        ),
        Action::Policies
    );
    // More of what goes without an approval.
    let quotas = escrow
        .organisations()
        .set_quotas(&permit, Some(1_000), None)
        .await;
    assert_eq!(needed(quotas), Action::Policies);
    // Another's approval.
    let desk = shop.desk.actor(vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    shop.decide(&shop.max, &id, true).await.unwrap();
    let under = admin.clone().with_leave(Leave::Under(id.clone()));
    let permit: Permit<Admin> = escrow
        .authorise(&under, &vault.organisation, "people")
        .await
        .unwrap();
    let given = people
        .set_roles(
            &permit,
            &shop.admin.view.id,
            &scope,
            &[Role::Admin, Role::Revealer],
        )
        .await;
    assert_eq!(unfit(given), Unfit::SomebodyElses);
    // What they ask for themselves they do not decide.
    let asking = admin.clone().with_leave(Leave::Asking("please".to_owned()));
    let permit: Permit<Admin> = escrow
        .authorise(&asking, &vault.organisation, "people")
        .await
        .unwrap();
    let given = people
        .set_roles(
            &permit,
            &shop.admin.view.id,
            &scope,
            &[Role::Admin, Role::Revealer],
        )
        .await;
    let Refusal::Asked { approval } = refusal(given) else {
        panic!("it is asked for")
    };
    let decided = shop.decide_as(&admin, &approval, true).await;
    assert!(matches!(
        refusal(decided),
        Refusal::Permission {
            permission: Permission::Approve,
            ..
        }
    ));
    assert!(shop.told("refused").await >= 15, "each try leaves its mark");
}

#[tokio::test]
async fn r19_where_codes_go_is_changed_under_the_policy_of_reveal() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let vault = &shop.vault;
    let own = settled(vault, "own", &[Role::Connections]).await;
    let actor = own.actor(vault).await;
    let add = async |leave: Leave, base_url: &str| {
        let actor = actor.clone().with_leave(leave);
        let permit: Permit<Connections> = vault
            .escrow
            .authorise(&actor, &vault.organisation, "mdm")
            .await
            .unwrap();
        let new = NewConnection {
            name: "theirs".to_owned(),
            kind: ConnectionKind::NanoMdm,
            base_url: base_url.to_owned(),
            path_prefix: String::new(),
            username: "x".to_owned(),
            api_key: "key".to_owned().into(),
            hook_auth: HookAuth::Hmac,
            hmac_secret: None,
            unlock_via: UnlockVia::Delegated,
            max_rate: None,
        };
        vault
            .escrow
            .connections()
            .add(&permit, new)
            .await
            .map(|made| made.is_ok())
    };
    assert_eq!(
        needed(add(Leave::Plain, "https://mdm.example.org").await),
        Action::Connections
    );
    let asked = refusal(
        add(
            Leave::Asking("a new MDM".to_owned()),
            "https://mdm.example.org",
        )
        .await,
    );
    let Refusal::Asked { approval } = asked else {
        panic!("it is asked for")
    };
    shop.decide(&shop.max, &approval, true).await.unwrap();
    let elsewhere = add(Leave::Under(approval.clone()), "https://evil.example").await;
    assert_eq!(unfit(elsewhere), Unfit::OtherTargets);
    assert!(
        add(Leave::Under(approval), "https://mdm.example.org")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_policy_that_nobody_could_meet_is_not_set() {
    let vault = Vault::new().await;
    let permit = vault.permit("policy").await;
    let policies = vault.escrow.policies();
    let set = policies.set(&permit, Action::Reveal, one()).await.unwrap();
    assert_eq!(set, Err(PolicyProblem::TooFewApprovers(0)));
    settled(&vault, "max", &[Role::Approver]).await;
    let two = Policy { people: 2, ..one() };
    let set = policies.set(&permit, Action::Reveal, two).await.unwrap();
    assert_eq!(set, Err(PolicyProblem::TooFewApprovers(1)));
    policies
        .set(&permit, Action::Reveal, one())
        .await
        .unwrap()
        .unwrap();
    let listed = policies.list(&vault.organisation).await.unwrap();
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[0], (Action::Reveal, one()));
}

#[tokio::test]
async fn one_sees_only_so_many_codes_an_hour_without_anothers_approval() {
    let vault = Vault::new().await;
    vault.type_code(SERIAL, CODE_A).await;
    let desk = settled(&vault, "desk", &[Role::Revealer]).await;
    let actor = desk.actor(&vault).await;
    let permit: Permit<Reveal> = vault
        .escrow
        .authorise(&actor, &vault.organisation, SERIAL)
        .await
        .unwrap();
    let reveal = async || {
        vault
            .escrow
            .codes()
            .reveal(&permit, &serial(SERIAL), "again")
            .await
            .map(|all| all.len())
    };
    for _ in 0..20 {
        assert_eq!(reveal().await.unwrap(), 1);
    }
    let Refusal::Quota { limit, wait, .. } = refusal(reveal().await) else {
        panic!("it is enough")
    };
    assert_eq!((limit, wait), (20, Duration::from_secs(3_600)));
    let owner = vault.permit("organisation").await;
    vault
        .escrow
        .organisations()
        .set_quotas(&owner, Some(21), None)
        .await
        .unwrap();
    assert_eq!(reveal().await.unwrap(), 1);
    assert!(matches!(refusal(reveal().await), Refusal::Quota { .. }));
    vault.clock.advance(Duration::from_secs(3_600));
    let actor = desk.actor(&vault).await;
    let permit: Permit<Reveal> = vault
        .escrow
        .authorise(&actor, &vault.organisation, SERIAL)
        .await
        .unwrap();
    let revealed = vault
        .escrow
        .codes()
        .reveal(&permit, &serial(SERIAL), "an hour later")
        .await;
    assert_eq!(revealed.unwrap().len(), 1);
}
