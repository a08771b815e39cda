//! What takes other people: asked for, decided, used once; and every way around it, closed.

use std::time::Duration;

use activation_lock::device::SerialNumber;
use escrow::Error;
use escrow::approvals::{
    Acknowledged, Action, Approval, Decided, Leave, Policy, State, Unfit, Which,
};
use escrow::operations::{Enqueued, NewUnlock};
use escrow::permit::{
    Actor, Admin, Approve, Permission, Permissions, Permit, Read, Refusal, Reveal, Role, Scope,
    Unlock,
};
use escrow::principals::NewToken;

use crate::beside::audit_texts;
use crate::people::{Person, settled};
use crate::support::{CODE_A, CODE_B, Vault};

mod around;

const SERIAL: &str = "APPROVED00001";
const OTHER: &str = "APPROVED00002";

fn one() -> Policy {
    Policy {
        people: 1,
        ..Policy::default()
    }
}

/// A vault with two devices, people of these roles, and a policy.
struct Shop {
    vault: Vault,
    /// Sees codes and unlocks; cannot approve.
    desk: Person,
    max: Person,
    ann: Person,
    /// Manages people and policies, and nothing else.
    admin: Person,
}

fn serial(text: &str) -> SerialNumber {
    text.parse().unwrap()
}

fn refusal<T>(result: escrow::Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn needed<T>(result: escrow::Result<T>) -> Action {
    match refusal(result) {
        Refusal::ApprovalNeeded(needed) => needed.action,
        other => panic!("{other}"),
    }
}

fn unfit<T>(result: escrow::Result<T>) -> Unfit {
    match refusal(result) {
        Refusal::Unfit { unfit } => unfit,
        other => panic!("{other}"),
    }
}

impl Shop {
    async fn open(actions: &[Action], policy: Policy) -> Self {
        let vault = Vault::new().await;
        for (serial, code) in [(SERIAL, CODE_A), (OTHER, CODE_B)] {
            vault.type_code(serial, code).await;
        }
        let desk = settled(&vault, "desk", &[Role::Revealer, Role::Operator]).await;
        let max = settled(&vault, "max", &[Role::Approver]).await;
        let ann = settled(&vault, "ann", &[Role::Approver]).await;
        let admin = settled(&vault, "admin", &[Role::Admin]).await;
        let permit = vault.permit("policy").await;
        for action in actions {
            vault
                .escrow
                .policies()
                .set(&permit, *action, policy)
                .await
                .unwrap()
                .unwrap();
        }
        Self {
            vault,
            desk,
            max,
            ann,
            admin,
        }
    }

    async fn reveal_as(&self, actor: &Actor, device: &str, leave: Leave) -> escrow::Result<usize> {
        let actor = actor.clone().with_leave(leave);
        let escrow = &self.vault.escrow;
        let permit: Permit<Reveal> = escrow
            .authorise(&actor, &self.vault.organisation, device)
            .await?;
        let revealed = escrow
            .codes()
            .reveal(&permit, &serial(device), "a returned device")
            .await?;
        Ok(revealed.len())
    }

    /// Asks as the desk, and gives the request.
    async fn ask(&self, actor: &Actor, device: &str) -> String {
        let asking = Leave::Asking("a returned device".to_owned());
        match refusal(self.reveal_as(actor, device, asking).await) {
            Refusal::Asked { approval } => approval,
            other => panic!("{other}"),
        }
    }

    async fn decide(&self, person: &Person, id: &str, yes: bool) -> escrow::Result<Decided> {
        let actor = person.actor(&self.vault).await;
        self.decide_as(&actor, id, yes).await
    }

    async fn decide_as(&self, actor: &Actor, id: &str, yes: bool) -> escrow::Result<Decided> {
        let escrow = &self.vault.escrow;
        let permit: Permit<Approve> = escrow
            .authorise(actor, &self.vault.organisation, id)
            .await?;
        escrow
            .approvals()
            .decide(&permit, id, yes, Some("seen"))
            .await
    }

    async fn get(&self, id: &str) -> Approval {
        let permit: Permit<Read> = self.vault.permit("approvals").await;
        self.vault
            .escrow
            .approvals()
            .get(&permit, id)
            .await
            .unwrap()
            .unwrap()
    }

    async fn roles(&self, person: &Person, roles: &[Role]) {
        let permit = self.vault.permit("people").await;
        let scope = Scope::One(self.vault.organisation.clone());
        let people = self.vault.escrow.people();
        people
            .set_roles(&permit, &person.view.id, &scope, roles)
            .await
            .unwrap()
            .unwrap();
    }

    async fn told(&self, action: &str) -> usize {
        let wanted = format!("\"action\":\"{action}\"");
        audit_texts(&self.vault)
            .await
            .iter()
            .filter(|row| row.contains(&wanted))
            .count()
    }
}

#[tokio::test]
async fn what_takes_another_person_is_asked_for_approved_and_done_once() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let desk = shop.desk.actor(&shop.vault).await;
    assert_eq!(
        needed(shop.reveal_as(&desk, SERIAL, Leave::Plain).await),
        Action::Reveal
    );
    let id = shop.ask(&desk, SERIAL).await;
    assert_eq!(
        shop.ask(&desk, SERIAL).await,
        id,
        "asked again it is the same request"
    );
    let under = || Leave::Under(id.clone());
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, under()).await),
        Unfit::Undecided
    );
    let asked = shop.get(&id).await;
    assert_eq!(
        (asked.state, asked.targets.as_slice()),
        (State::Asked, &[format!("device {SERIAL}")][..])
    );
    assert_eq!(asked.reason, "a returned device");

    assert!(matches!(
        shop.decide(&shop.max, &id, true).await.unwrap(),
        Decided::Counted(_)
    ));
    assert!(matches!(
        shop.decide(&shop.ann, &id, true).await.unwrap(),
        Decided::Closed(_)
    ));
    assert_eq!(
        unfit(shop.reveal_as(&desk, OTHER, under()).await),
        Unfit::OtherTargets
    );
    assert_eq!(
        shop.get(&id).await.state,
        State::Approved,
        "nothing is used up by what is refused"
    );
    assert_eq!(shop.reveal_as(&desk, SERIAL, under()).await.unwrap(), 1);
    let seen = shop.vault.device(SERIAL).await.codes[0].revealed.clone();
    assert_eq!(seen.map(|(_, by)| by).as_deref(), Some("desk by name"));

    // The answer may have been lost: once more, for five minutes, to the same session.
    assert_eq!(shop.reveal_as(&desk, SERIAL, under()).await.unwrap(), 1);
    let elsewhere = shop.desk.actor(&shop.vault).await;
    assert_eq!(
        unfit(shop.reveal_as(&elsewhere, SERIAL, under()).await),
        Unfit::Used
    );
    shop.vault.clock.advance(Duration::from_secs(300));
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, under()).await),
        Unfit::Used
    );

    let rows = audit_texts(&shop.vault).await;
    let shown: Vec<_> = rows
        .iter()
        .filter(|row| row.contains("\"action\":\"code.reveal\""))
        .collect();
    assert_eq!(shown.len(), 2);
    assert!(
        shown
            .iter()
            .all(|row| row.contains(&id) && row.contains("max by name"))
    );
    assert_eq!(
        (
            shop.told("approval.ask").await,
            shop.told("approval.approve").await
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn it_takes_as_many_people_as_the_policy_says_and_one_no_ends_it() {
    let two = Policy {
        people: 2,
        ..Policy::default()
    };
    let shop = Shop::open(&[Action::Reveal], two).await;
    let desk = shop.desk.actor(&shop.vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    let max = shop.max.actor(&shop.vault).await;
    let Decided::Counted(half) = shop.decide_as(&max, &id, true).await.unwrap() else {
        panic!("it counts")
    };
    assert_eq!(half.state, State::Asked);
    assert_eq!(
        shop.decide_as(&max, &id, true).await.unwrap(),
        Decided::Before
    );
    assert_eq!(
        unfit(
            shop.reveal_as(&desk, SERIAL, Leave::Under(id.clone()))
                .await
        ),
        Unfit::Undecided
    );
    shop.decide(&shop.ann, &id, true).await.unwrap();
    assert_eq!(
        shop.reveal_as(&desk, SERIAL, Leave::Under(id))
            .await
            .unwrap(),
        1
    );

    let id = shop.ask(&desk, OTHER).await;
    shop.decide(&shop.ann, &id, false).await.unwrap();
    assert!(matches!(
        shop.decide(&shop.max, &id, true).await.unwrap(),
        Decided::Closed(_)
    ));
    assert_eq!(
        unfit(shop.reveal_as(&desk, OTHER, Leave::Under(id)).await),
        Unfit::Refused
    );
    assert_eq!(shop.told("approval.refuse").await, 1);
}

#[tokio::test]
async fn another_person_is_another_human_being_and_never_a_token() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    shop.roles(&shop.desk, &[Role::Revealer, Role::Approver, Role::Admin])
        .await;
    let desk = shop.desk.actor(&shop.vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    assert_eq!(
        shop.decide_as(&desk, &id, true).await.unwrap(),
        Decided::Own
    );

    // A token of theirs is them, and no person either; nor is one of an approver.
    let escrow = &shop.vault.escrow;
    for owner in [&shop.desk, &shop.max] {
        shop.roles(owner, &[Role::Revealer, Role::Approver, Role::Admin])
            .await;
        let actor = owner.actor(&shop.vault).await;
        let permit: Permit<Admin> = escrow
            .authorise(&actor, &shop.vault.organisation, "tokens")
            .await
            .unwrap();
        let new = NewToken {
            name: "a token".to_owned(),
            scope: Scope::One(shop.vault.organisation.clone()),
            permissions: Permissions::of(&[
                Permission::Approve,
                Permission::Reveal,
                Permission::Read,
            ]),
            expires_at: None,
        };
        let (_, text) = escrow
            .principals()
            .create_token(&permit, new)
            .await
            .unwrap();
        let token = escrow
            .principals()
            .authenticate(text.expose(), None)
            .await
            .unwrap()
            .unwrap();
        let decided = shop.decide_as(&token, &id, true).await;
        assert!(matches!(refusal(decided), Refusal::NotAPerson { .. }));
    }
    assert_eq!(shop.get(&id).await.state, State::Asked);

    // A token of nobody sees nothing, and has nobody who could ask.
    let permit: Permit<Admin> = shop.vault.permit("tokens").await;
    let new = NewToken {
        name: "of nobody".to_owned(),
        scope: Scope::All,
        permissions: Permissions::of(&[Permission::Reveal, Permission::Read]),
        expires_at: None,
    };
    let (_, text) = escrow
        .principals()
        .create_token(&permit, new)
        .await
        .unwrap();
    let token = escrow
        .principals()
        .authenticate(text.expose(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        needed(shop.reveal_as(&token, SERIAL, Leave::Plain).await),
        Action::Reveal
    );
    let before = shop.told("refused").await;
    let asked = shop
        .reveal_as(&token, SERIAL, Leave::Asking("because".to_owned()))
        .await;
    assert!(matches!(refusal(asked), Refusal::NotAPerson { .. }));
    assert_eq!(shop.told("refused").await, before + 1, "that is on record");
}

#[tokio::test]
async fn ones_own_word_counts_only_where_the_policy_says_so() {
    let own = Policy {
        self_approval: true,
        ..one()
    };
    let shop = Shop::open(&[Action::Reveal], own).await;
    shop.roles(&shop.desk, &[Role::Revealer, Role::Approver])
        .await;
    let desk = shop.desk.actor(&shop.vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    assert!(matches!(
        shop.decide_as(&desk, &id, true).await.unwrap(),
        Decided::Counted(_)
    ));
    // Made stricter since, it does not count any more.
    let permit = shop.vault.permit("policy").await;
    shop.vault
        .escrow
        .policies()
        .set(&permit, Action::Reveal, one())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, Leave::Under(id)).await),
        Unfit::TooFew
    );
}

#[tokio::test]
async fn a_request_and_an_approval_have_an_end() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let desk = shop.desk.actor(&shop.vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    shop.vault.clock.advance(Duration::from_secs(7 * 86_400));
    assert!(matches!(
        shop.decide(&shop.max, &id, true).await.unwrap(),
        Decided::Closed(_)
    ));
    let desk = shop.desk.actor(&shop.vault).await;
    let again = shop.ask(&desk, SERIAL).await;
    assert_ne!(again, id);
    shop.decide(&shop.max, &again, true).await.unwrap();
    shop.vault.clock.advance(Duration::from_secs(3_600));
    let desk = shop.desk.actor(&shop.vault).await;
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, Leave::Under(again)).await),
        Unfit::Expired
    );

    let permit: Permit<Read> = shop
        .vault
        .escrow
        .authorise(&desk, &shop.vault.organisation, "approvals")
        .await
        .unwrap();
    let approvals = shop.vault.escrow.approvals();
    assert!(
        approvals
            .list(&permit, Which::Open, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let taken_back = shop.ask(&desk, SERIAL).await;
    assert_eq!(
        approvals
            .list(&permit, Which::Open, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        approvals.list(&permit, Which::Own, 10).await.unwrap().len(),
        3
    );
    assert!(approvals.cancel(&permit, &taken_back).await.unwrap());
    assert!(!approvals.cancel(&permit, &taken_back).await.unwrap());
    assert!(matches!(
        shop.decide(&shop.max, &taken_back, true).await.unwrap(),
        Decided::Closed(_)
    ));
    assert_eq!(
        unfit(
            shop.reveal_as(&desk, SERIAL, Leave::Under(taken_back))
                .await
        ),
        Unfit::Cancelled
    );
}

#[tokio::test]
async fn roles_are_checked_again_when_an_approval_is_used() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let desk = shop.desk.actor(&shop.vault).await;
    let id = shop.ask(&desk, SERIAL).await;
    shop.decide(&shop.max, &id, true).await.unwrap();
    let under = || Leave::Under(id.clone());
    shop.roles(&shop.max, &[Role::Viewer]).await;
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, under()).await),
        Unfit::TooFew
    );
    shop.roles(&shop.max, &[Role::Approver]).await;
    let permit = shop.vault.permit("people").await;
    let people = shop.vault.escrow.people();
    people
        .set_disabled(&permit, &shop.max.view.id, true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        unfit(shop.reveal_as(&desk, SERIAL, under()).await),
        Unfit::TooFew
    );
    people
        .set_disabled(&permit, &shop.max.view.id, false)
        .await
        .unwrap()
        .unwrap();

    // Between the check and the verb who asked loses the role.
    let escrow = &shop.vault.escrow;
    let actor = desk.clone().with_leave(under());
    let permit: Permit<Reveal> = escrow
        .authorise(&actor, &shop.vault.organisation, SERIAL)
        .await
        .unwrap();
    shop.roles(&shop.desk, &[Role::Operator]).await;
    let revealed = escrow
        .codes()
        .reveal(&permit, &serial(SERIAL), "late")
        .await;
    assert!(matches!(
        refusal(revealed.map(|codes| codes.len())),
        Refusal::Permission {
            permission: Permission::Reveal,
            ..
        }
    ));
    assert_eq!(shop.get(&id).await.state, State::Approved);
}

#[tokio::test]
async fn two_uses_at_once_are_one() {
    let shop = Shop::open(&[Action::Unlock], one()).await;
    let vault = &shop.vault;
    let permit: Permit<escrow::permit::Edit> = vault.permit(SERIAL).await;
    for device in [SERIAL, OTHER] {
        let correction = escrow::devices::Corrections {
            product_type: Some("iPad13,1".parse().unwrap()),
            ..Default::default()
        };
        vault
            .escrow
            .devices()
            .correct(&permit, &serial(device), &correction)
            .await
            .unwrap();
    }
    let desk = shop.desk.actor(vault).await;
    let unlock = async |leave: Leave| {
        let actor = desk.clone().with_leave(leave);
        let permit: Permit<Unlock> = vault
            .escrow
            .authorise(&actor, &vault.organisation, SERIAL)
            .await
            .unwrap();
        let new = NewUnlock {
            serial: serial(SERIAL),
            reason: "returned".to_owned(),
            requester: "desk".to_owned(),
            insists: false,
            urgent: true,
            idempotency: None,
        };
        vault.escrow.operations().enqueue(&permit, new).await
    };
    assert_eq!(needed(unlock(Leave::Plain).await), Action::Unlock);
    let Refusal::Asked { approval } = refusal(unlock(Leave::Asking("returned".to_owned())).await)
    else {
        panic!("it is asked for")
    };
    shop.decide(&shop.max, &approval, true).await.unwrap();
    let unasked = shop
        .reveal_as(&desk, SERIAL, Leave::Asking("needs none".to_owned()))
        .await;
    assert_eq!(
        refusal(unasked),
        Refusal::NotNeeded,
        "who asks expects that nothing is done"
    );
    // An approval of an unlock is none of a reveal.
    let other = shop
        .reveal_as(&desk, SERIAL, Leave::Under(approval.clone()))
        .await;
    assert_eq!(
        other.unwrap(),
        1,
        "a reveal needs none here, and uses none up"
    );
    let under = || Leave::Under(approval.clone());
    let done =
        futures_util::future::join_all([unlock(under()), unlock(under()), unlock(under())]).await;
    let new = done
        .iter()
        .filter(|one| matches!(one, Ok(Enqueued::New(_))))
        .count();
    assert_eq!(new, 1);
    let permit: Permit<Unlock> = vault.permit(SERIAL).await;
    let view = done.into_iter().find_map(|one| match one {
        Ok(Enqueued::New(view)) => Some(view),
        _ => None,
    });
    vault
        .escrow
        .operations()
        .cancel(&permit, &view.unwrap().id)
        .await
        .unwrap();
    assert_eq!(
        unfit(unlock(under()).await),
        Unfit::Used,
        "not asked for twice"
    );
}

#[tokio::test]
async fn broken_glass_is_loud_and_stays_until_another_person_has_seen_it() {
    let shop = Shop::open(&[Action::Reveal], one()).await;
    let vault = &shop.vault;
    let desk = shop.desk.actor(vault).await;
    let breaking = || Leave::BreakingGlass("the building is on fire".to_owned());
    let refused = shop.reveal_as(&desk, SERIAL, breaking()).await;
    assert!(matches!(
        refusal(refused),
        Refusal::Permission {
            permission: Permission::BreakGlass,
            ..
        }
    ));
    shop.roles(
        &shop.desk,
        &[Role::Revealer, Role::BreakGlass, Role::Approver],
    )
    .await;
    let desk = shop.desk.actor(vault).await;
    assert_eq!(shop.reveal_as(&desk, SERIAL, breaking()).await.unwrap(), 1);
    let rows = audit_texts(vault).await;
    let marked = rows
        .iter()
        .filter(|row| row.contains("the building is on fire"));
    assert_eq!(marked.count(), 2, "the emergency, and the reveal under it");

    let emergencies = vault.escrow.emergencies();
    let permit: Permit<Read> = vault.permit("emergencies").await;
    let listed = emergencies.list(&permit, false).await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "desk by name"));
    let acknowledge = async |person: &Person| {
        let actor = person.actor(vault).await;
        let permit: Permit<Approve> = vault
            .escrow
            .authorise(&actor, &vault.organisation, "x")
            .await
            .unwrap();
        vault
            .escrow
            .emergencies()
            .acknowledge(&permit, &listed[0].id)
            .await
            .unwrap()
    };
    assert_eq!(acknowledge(&shop.desk).await, Acknowledged::Own);
    assert!(matches!(
        acknowledge(&shop.max).await,
        Acknowledged::Done(_)
    ));
    assert_eq!(acknowledge(&shop.ann).await, Acknowledged::Unknown);
    assert!(emergencies.list(&permit, false).await.unwrap().is_empty());
    assert_eq!(emergencies.list(&permit, true).await.unwrap().len(), 1);
}
