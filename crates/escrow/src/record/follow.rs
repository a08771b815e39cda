//! What follows from what is known: what is asked of a device next, and whether its user may lock it (R7, R8).

use std::time::Duration;

use activation_lock::asking;
use activation_lock::device::{ProductFamily, ProductType};
use activation_lock::guard::{self, Permission, ReadBack, Sent};
use activation_lock::observation::EnrollmentKind;
use activation_lock::time::{DAY, Timestamp};

use super::{key_of, note};
use crate::commands::{Command, CommandState, CommandType};
use crate::ledger::{DeviceKey, Ledger};

/// DeviceInformation is asked again when the last answer is older than this.
const INFORMATION_AGE: Duration = Duration::from_secs(6 * 24 * 60 * 60);

/// Decides what is asked of the device next, and puts it on record.
pub(crate) fn follow_up(ledger: &mut Ledger<'_>, at: usize) {
    if ledger.epoch(at).enrolled_at.is_some() {
        void_lost(ledger, at);
        let due = ask(ledger, at);
        ledger.next_ask(at, Some(due));
        permit_lock(ledger, at);
    }
    if let Some(serial) = ledger.epoch(at).serial.clone() {
        let key = key_of(ledger, at, &serial);
        mark_doubt(ledger, at, &key);
        ledger.refresh_coverage(&key);
    }
}

/// Commands whose answers will never come make room for new ones: those that were pending while answers were lost, and those
/// of more than a week ago, for an MDM may lose a command (R8). When the code is asked for again is decided apart.
fn void_lost(ledger: &mut Ledger<'_>, at: usize) {
    let (now, lost_at) = (ledger.now(), ledger.epoch(at).answers_lost_at);
    for what in [
        CommandType::DeviceInformation,
        CommandType::SecurityInfo,
        CommandType::LockPermission { allowed: true },
    ] {
        let Some(made_at) = ledger.pending(at, what).map(|command| command.created_at) else {
            continue;
        };
        if lost_at.is_none_or(|lost| made_at >= lost) && made_at.plus(asking::WEEK) > now {
            continue;
        }
        ledger.void_pending(at, what, "its answer may be lost");
        let facts = &mut ledger.epoch_mut(at).facts;
        match what {
            CommandType::DeviceInformation => facts.info_asked_at = None,
            CommandType::SecurityInfo => facts.security_asked_at = None,
            // The guard sees that none is pending.
            CommandType::LockPermission { .. } | CommandType::BypassCode => {}
        }
    }
}

/// Asks for what is due (R6, R8, R10). Gives the moment of the next ask.
fn ask(ledger: &mut Ledger<'_>, at: usize) -> Timestamp {
    let now = ledger.now();
    let epoch = ledger.epoch(at);
    let family = ledger.product_type(at).map(ProductType::family);
    let not_asked = epoch.why_not_asked(ledger.product_type(at));
    let pending = ledger.pending(at, CommandType::BypassCode).is_some();
    let mut due = asking::next_ask(&epoch.ask_history(pending));
    let mut information_due = epoch
        .facts
        .info_asked_at
        .is_none_or(|asked| asked.plus(INFORMATION_AGE) <= now);
    if epoch.kind == EnrollmentKind::UserEnrollmentDevice {
        information_due = false;
    }
    if not_asked.is_some() {
        due = epoch.facts.info_asked_at.unwrap_or(now).plus(asking::WEEK);
        ledger.void_pending(
            at,
            CommandType::BypassCode,
            "the device is not one that gives a code",
        );
    } else if due <= now {
        information_due |=
            epoch.facts.info_at.is_none() || epoch.triggered_at.is_some_and(|t| t >= due);
    }
    // Who are you before what is your code: an answer of an adopted device waits for its serial number otherwise.
    if information_due {
        if ledger
            .epoch(at)
            .facts
            .info_asked_at
            .is_some_and(|asked| asked.plus(DAY) <= now)
        {
            ledger.void_pending(at, CommandType::DeviceInformation, "unanswered");
        }
        if ledger.plan(at, CommandType::DeviceInformation, "who is it") {
            ledger.epoch_mut(at).facts.info_asked_at = Some(now);
        }
    }
    let facts = &ledger.epoch(at).facts;
    if family == Some(ProductFamily::Mac)
        && facts.manageable.is_none()
        && facts
            .security_asked_at
            .is_none_or(|asked| asked.plus(asking::WEEK) <= now)
    {
        ask_security(ledger, at);
    }
    if not_asked.is_none() && due <= now {
        ledger.void_pending(at, CommandType::BypassCode, "unanswered, asked again");
        ledger.plan(at, CommandType::BypassCode, "its code");
        ledger.epoch_mut(at).last_asked_at = Some(now);
        due = asking::next_ask(&ledger.epoch(at).ask_history(true));
    }
    due
}

fn ask_security(ledger: &mut Ledger<'_>, at: usize) {
    let now = ledger.now();
    if ledger.plan(at, CommandType::SecurityInfo, "can its lock be managed") {
        ledger.epoch_mut(at).facts.security_asked_at = Some(now);
    }
}

/// Sends the permission to lock, or withdraws it, when policy and guard say so (R7).
fn permit_lock(ledger: &mut Ledger<'_>, at: usize) {
    let epoch = ledger.epoch(at);
    let policy = ledger.policy(&epoch.organisation);
    let is_meant = |command: &Command| {
        epoch.is_undisputed()
            && policy
                .wanted()
                .is_some_and(|allowed| command.what == CommandType::LockPermission { allowed })
    };
    let what = CommandType::LockPermission { allowed: true };
    if ledger
        .pending(at, what)
        .is_some_and(|c| c.state == CommandState::Planned && !is_meant(c))
    {
        ledger.void_pending(at, what, "no longer wanted");
    }
    let epoch = ledger.epoch(at);
    if policy.wanted().is_none() || !epoch.is_undisputed() || epoch.serial.is_none() {
        return;
    }
    let product = ledger.product_type(at);
    let facts = guard::Facts {
        policy,
        not_asked: epoch.why_not_asked(product),
        code_held: epoch.code.is_some(),
        family: product.map(ProductType::family),
        manageable: epoch.facts.manageable,
        read_back: epoch
            .facts
            .allowed
            .zip(epoch.facts.allowed_at)
            .map(|(allowed, at)| ReadBack { allowed, at }),
        sent: ledger.newest_permission(at).and_then(sent_permission),
    };
    let now = ledger.now();
    match guard::permission(&facts) {
        Permission::SendAllow => {
            if ledger.plan(
                at,
                CommandType::LockPermission { allowed: true },
                "policy: allow",
            ) {
                ledger.epoch_mut(at).facts.permission_sent = true;
            }
        }
        Permission::SendDeny => {
            if ledger.plan(
                at,
                CommandType::LockPermission { allowed: false },
                "policy: deny",
            ) {
                ledger.epoch_mut(at).facts.permission_sent = true;
            }
        }
        Permission::AskSecurityInfo => ask_security(ledger, at),
        Permission::ReadBack => {
            if ledger.plan(
                at,
                CommandType::DeviceInformation,
                "has the permission arrived",
            ) {
                ledger.epoch_mut(at).facts.info_asked_at = Some(now);
            }
        }
        Permission::Nothing(_) => {}
    }
}

fn sent_permission(command: &Command) -> Option<Sent> {
    let CommandType::LockPermission { allowed } = command.what else {
        return None;
    };
    let answer = match command.state {
        CommandState::Planned | CommandState::Queued | CommandState::NotNow => {
            guard::Answer::Pending
        }
        CommandState::Answered => guard::Answer::Acknowledged {
            at: command.answered_at?,
        },
        CommandState::Failed => guard::Answer::Failed,
        CommandState::Void | CommandState::GivenUp => return None,
    };
    Some(Sent { allowed, answer })
}

/// A code whose device may have been locked before the code was had is doubtful (R7).
fn mark_doubt(ledger: &mut Ledger<'_>, at: usize, key: &DeviceKey) {
    let epoch = ledger.epoch(at);
    let (Some(code), Some(gap)) = (epoch.code.clone(), epoch.allowed_before_escrow()) else {
        return;
    };
    let doubt = format!("allowed_before_escrow_{}", gap.as_str());
    if let Some(known) = ledger.codes(key).iter().find(|known| known.id == code)
        && known.doubt.as_ref() != Some(&doubt)
    {
        if let Some(known) = ledger.code_mut(key, &code) {
            known.doubt = Some(doubt);
        }
        note(
            ledger,
            at,
            "code.doubtful",
            "the lock was allowed before this code was had",
        );
    }
}
