//! Epochs: one enrollment of a device each, from its Authenticate or from when we first saw it (R6).

use activation_lock::asking::{self, AskHistory, NotAsked, Refusal, Trigger};
use activation_lock::codes::CodeId;
use activation_lock::device::{ProductFamily, ProductType, SerialNumber};
use activation_lock::guard::{self, MacFacts, OptionHistory};
use activation_lock::observation::{DeviceInformation, EnrollmentKind, ErrorLink, SecurityInfo};
use activation_lock::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::connections::ConnectionRef;
use crate::db::{Row, Tx, Value, params};
use crate::ledger::{EnrollmentKey, Ledger};
use crate::news::News;
use crate::permit::OrganisationId;
use crate::{Error, Escrow, Result, record};

/// What opened an epoch (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenedBy {
    /// An Authenticate.
    Authenticate,
    /// A first TokenUpdate whose Authenticate never came.
    TokenUpdate,
    /// First sight of an enrollment that began before us: its start is unknown.
    Adopted,
}

impl OpenedBy {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::TokenUpdate => "token_update",
            Self::Adopted => "adopted",
        }
    }

    fn from_name(text: &str) -> Self {
        match text {
            "authenticate" => Self::Authenticate,
            "token_update" => Self::TokenUpdate,
            _ => Self::Adopted,
        }
    }
}

/// How an epoch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochState {
    /// The device is enrolled here as far as we know.
    Live,
    /// Another live enrollment claims the same serial number; neither moves the current code (R5).
    Disputed,
    /// It reported another serial number than the one on file (R5).
    Quarantined,
    /// A later enrolment took its place.
    Superseded,
    /// The device checked out.
    Left,
    /// Lost a dispute by falling silent.
    Silent,
}

impl EpochState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Disputed => "disputed",
            Self::Quarantined => "quarantined",
            Self::Superseded => "superseded",
            Self::Left => "left",
            Self::Silent => "silent",
        }
    }

    fn from_name(text: &str) -> Self {
        match text {
            "live" => Self::Live,
            "disputed" => Self::Disputed,
            "superseded" => Self::Superseded,
            "left" => Self::Left,
            "silent" => Self::Silent,
            _ => Self::Quarantined,
        }
    }
}

/// What the check-ins and answers of one epoch told. Kept as one JSON value: it is read and written with its
/// epoch only, never searched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochFacts {
    /// A check-in said that the device stood in Setup Assistant.
    pub awaiting_configuration: bool,
    /// When DeviceInformation was last put to the device.
    pub info_asked_at: Option<Timestamp>,
    /// When DeviceInformation was last answered.
    pub info_at: Option<Timestamp>,
    /// `IsSupervised`.
    pub supervised: Option<bool>,
    /// `IsMultiUser`.
    pub multi_user: Option<bool>,
    /// `IsUserEnrollment`.
    pub user_enrollment: Option<bool>,
    /// `IsActivationLockSupported`.
    pub lock_supported: Option<bool>,
    /// `IsActivationLockManageable`.
    pub manageable: Option<bool>,
    /// When SecurityInfo was last put to the device.
    pub security_asked_at: Option<Timestamp>,
    /// `EnrolledViaDEP`.
    pub enrolled_via_dep: Option<bool>,
    /// Find My, as last told.
    pub find_my: Option<bool>,
    /// Find My, as first told in this epoch.
    pub find_my_at_first: Option<bool>,
    /// `IsActivationLockEnabled`, as last told: a hint at most (R11).
    pub lock_hint: Option<bool>,
    /// `IsActivationLockEnabled`, as first told in this epoch.
    pub lock_hint_at_first: Option<bool>,
    /// The permission to lock, as last read back.
    pub allowed: Option<bool>,
    /// When it was last read back.
    pub allowed_at: Option<Timestamp>,
    /// When it was first read back as true.
    pub allowed_first_true: Option<Timestamp>,
    /// When it was first read back as false.
    pub allowed_first_false: Option<Timestamp>,
    /// A permission, to allow or to deny, was sent in this epoch.
    pub permission_sent: bool,
    /// When the device first acknowledged our permission to allow.
    pub first_allow: Option<Timestamp>,
    /// How the device refused to give a code, if it did at the last ask.
    pub refusal: Option<Refusal>,
    /// The last answer to an ask held no code.
    pub answered_without_code: bool,
    /// The first link of the last error chain.
    pub last_error: Option<ErrorLink>,
}

impl EpochFacts {
    /// Takes in an answer to DeviceInformation. Says whether Find My went on since the last one (R8).
    fn learn(&mut self, info: &DeviceInformation, at: Timestamp) -> bool {
        let found_on = info.find_my == Some(true) && self.find_my == Some(false);
        self.info_at = Some(at);
        for (known, told) in [
            (&mut self.supervised, info.supervised),
            (&mut self.multi_user, info.multi_user),
            (&mut self.lock_supported, info.activation_lock_supported),
            (&mut self.find_my, info.find_my),
            (&mut self.lock_hint, info.activation_lock_hint),
        ] {
            *known = told.or(*known);
        }
        self.find_my_at_first = self.find_my_at_first.or(info.find_my);
        self.lock_hint_at_first = self.lock_hint_at_first.or(info.activation_lock_hint);
        self.awaiting_configuration |= info.awaiting_configuration == Some(true);
        if let Some(allowed) = info.lock_allowed {
            self.allowed = Some(allowed);
            self.allowed_at = Some(at);
            let first = if allowed {
                &mut self.allowed_first_true
            } else {
                &mut self.allowed_first_false
            };
            first.get_or_insert(at);
        }
        found_on
    }

    fn learn_security(&mut self, info: &SecurityInfo) {
        for (known, told) in [
            (&mut self.manageable, info.activation_lock_manageable),
            (&mut self.enrolled_via_dep, info.enrolled_via_dep),
            (&mut self.user_enrollment, info.user_enrollment),
        ] {
            *known = told.or(*known);
        }
    }
}

/// One epoch, as the record of events works on it.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub(crate) organisation: OrganisationId,
    pub(crate) id: String,
    pub(crate) connection: String,
    pub(crate) enrollment: String,
    pub(crate) kind: EnrollmentKind,
    pub(crate) serial: Option<SerialNumber>,
    pub(crate) udid: Option<String>,
    pub(crate) topic: Option<String>,
    pub(crate) opened_by: OpenedBy,
    pub(crate) opened_at: Timestamp,
    pub(crate) event_at: Timestamp,
    pub(crate) authenticated_at: Option<Timestamp>,
    pub(crate) enrolled_at: Option<Timestamp>,
    pub(crate) state: EpochState,
    pub(crate) state_reason: Option<String>,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) code: Option<CodeId>,
    pub(crate) code_at: Option<Timestamp>,
    pub(crate) facts: EpochFacts,
    pub(crate) last_asked_at: Option<Timestamp>,
    pub(crate) triggered_at: Option<Timestamp>,
    pub(crate) answers_lost_at: Option<Timestamp>,
    pub(crate) next_ask_at: Option<Timestamp>,
    pub(crate) seen_at: Timestamp,
}

macro_rules! select_epochs {
    ($rest:literal) => {
        concat!(
            "SELECT epochs.organisation, epochs.id, connection, enrollment, kind, serial, udid, topic, opened_by, ",
            "opened_at, event_at, authenticated_at, enrolled_at, state, state_reason, closed_at, code, code_at, facts, ",
            "last_asked_at, triggered_at, answers_lost_at, next_ask_at, seen_at FROM ",
            $rest
        )
    };
}

impl Epoch {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("kind")?;
        let serial: Option<String> = row.get("serial")?;
        let facts: String = row.get("facts")?;
        Ok(Self {
            organisation: row.get("organisation")?,
            id: row.get("id")?,
            connection: row.get("connection")?,
            enrollment: row.get("enrollment")?,
            kind: EnrollmentKind::from_name(&kind).ok_or(Error::Corrupt("epochs.kind"))?,
            serial: serial
                .map(|s| s.parse())
                .transpose()
                .map_err(|_| Error::Corrupt("epochs.serial"))?,
            udid: row.get("udid")?,
            topic: row.get("topic")?,
            opened_by: OpenedBy::from_name(&row.get::<String>("opened_by")?),
            opened_at: row.get("opened_at")?,
            event_at: row.get("event_at")?,
            authenticated_at: row.get("authenticated_at")?,
            enrolled_at: row.get("enrolled_at")?,
            state: EpochState::from_name(&row.get::<String>("state")?),
            state_reason: row.get("state_reason")?,
            closed_at: row.get("closed_at")?,
            code: row.get::<Option<String>>("code")?.map(CodeId),
            code_at: row.get("code_at")?,
            facts: serde_json::from_str(&facts).map_err(|_| Error::Corrupt("epochs.facts"))?,
            last_asked_at: row.get("last_asked_at")?,
            triggered_at: row.get("triggered_at")?,
            answers_lost_at: row.get("answers_lost_at")?,
            next_ask_at: row.get("next_ask_at")?,
            seen_at: row.get("seen_at")?,
        })
    }

    /// The live epoch of an enrollment.
    async fn live(
        tx: &mut Tx<'_>,
        connection: &ConnectionRef,
        enrollment: &str,
    ) -> Result<Option<Self>> {
        tx.fetch_optional(
            select_epochs!("epochs WHERE organisation = $1 AND connection = $2 AND enrollment = $3 AND closed_at IS NULL"),
            params![connection.organisation.as_str(), connection.id.as_str(), enrollment],
        )
        .await?
        .map(|row| Self::from_row(&row))
        .transpose()
    }

    /// The live epochs of these enrollments.
    pub(crate) async fn live_of(
        tx: &mut Tx<'_>,
        enrollments: &[EnrollmentKey],
    ) -> Result<Vec<Self>> {
        let keys: Vec<_> = enrollments
            .iter()
            .map(|(c, enrollment)| json!([c.organisation.as_str(), c.id, enrollment]))
            .collect();
        tx.fetch_all(
            select_epochs!(
                "(SELECT DISTINCT value FROM json_each($1)) AS wanted JOIN epochs ON organisation = wanted.value ->> 0 \
                 AND connection = wanted.value ->> 1 AND enrollment = wanted.value ->> 2 AND closed_at IS NULL"
            ),
            params![json!(keys).to_string()],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// The closed epochs of these enrollments that never said whose they were and hold an answer.
    pub(crate) async fn nameless_of(
        tx: &mut Tx<'_>,
        enrollments: impl Iterator<Item = &EnrollmentKey>,
    ) -> Result<Vec<Self>> {
        let keys: Vec<_> = enrollments
            .map(|(c, enrollment)| json!([c.organisation.as_str(), c.id, enrollment]))
            .collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        tx.fetch_all(
            select_epochs!(
                "(SELECT DISTINCT value FROM json_each($1)) AS wanted JOIN epochs ON organisation = wanted.value ->> 0 \
                 AND connection = wanted.value ->> 1 AND enrollment = wanted.value ->> 2 AND closed_at IS NOT NULL \
                 AND serial IS NULL AND EXISTS (SELECT 1 FROM held_answers \
                 WHERE held_answers.organisation = epochs.organisation AND held_answers.epoch = epochs.id)"
            ),
            params![json!(keys).to_string()],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// The open epochs of these devices; `keys` is a JSON array of organisation and serial number.
    pub(crate) async fn open_of_keys(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_epochs!(
                "(SELECT value FROM json_each($1)) AS wanted JOIN epochs ON organisation = wanted.value ->> 0 \
                 AND serial = wanted.value ->> 1 AND closed_at IS NULL"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// Epochs by organisation and identifier; `keys` is a JSON array of those.
    pub(crate) async fn of_ids(tx: &mut Tx<'_>, keys: &str) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_epochs!(
                "(SELECT DISTINCT value FROM json_each($1)) AS wanted JOIN epochs ON organisation = wanted.value ->> 0 \
                 AND epochs.id = wanted.value ->> 1"
            ),
            params![keys],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// Every epoch of a device, oldest first.
    pub(crate) async fn all_of_device(
        tx: &mut Tx<'_>,
        organisation: &OrganisationId,
        serial: &SerialNumber,
    ) -> Result<Vec<Self>> {
        tx.fetch_all(
            select_epochs!("epochs WHERE organisation = $1 AND serial = $2 ORDER BY id"),
            params![organisation.as_str(), serial.as_str()],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// Open epochs whose next ask is due, the longest overdue first.
    pub(crate) async fn due(tx: &mut Tx<'_>, limit: i64) -> Result<Vec<Self>> {
        let now = tx.now();
        tx.fetch_all(
            select_epochs!(
                "epochs WHERE next_ask_at <= $1 AND closed_at IS NULL ORDER BY next_ask_at LIMIT $2"
            ),
            params![now, limit],
        )
        .await?
        .iter()
        .map(Self::from_row)
        .collect()
    }

    /// A new one, opened now.
    pub(crate) fn new(
        id: String,
        connection: &ConnectionRef,
        enrollment: &str,
        kind: EnrollmentKind,
        opened_by: OpenedBy,
        event_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        Self {
            organisation: connection.organisation.clone(),
            id,
            connection: connection.id.clone(),
            enrollment: enrollment.to_owned(),
            kind,
            serial: None,
            udid: None,
            topic: None,
            opened_by,
            opened_at: now,
            event_at,
            authenticated_at: None,
            enrolled_at: None,
            state: EpochState::Live,
            state_reason: None,
            closed_at: None,
            code: None,
            code_at: None,
            facts: EpochFacts::default(),
            last_asked_at: None,
            triggered_at: None,
            answers_lost_at: None,
            next_ask_at: None,
            seen_at: now,
        }
    }

    /// Every column, in the order of [`crate::ledger`]'s statement.
    pub(crate) fn to_row(&self, next_ask_at: Option<Timestamp>) -> Vec<Value> {
        let mut facts = serde_json::to_value(&self.facts).expect("facts are plain values");
        // Most are not known of most epochs: what is not there takes no room.
        if let Some(known) = facts.as_object_mut() {
            known.retain(|_, fact| !fact.is_null());
        }
        params![
            self.organisation.as_str(),
            self.id.as_str(),
            self.connection.as_str(),
            self.enrollment.as_str(),
            self.kind.as_str(),
            self.serial.as_ref().map(SerialNumber::as_str),
            self.udid.as_deref(),
            self.topic.as_deref(),
            self.opened_by.as_str(),
            self.opened_at,
            self.event_at,
            self.authenticated_at,
            self.enrolled_at,
            self.state.as_str(),
            self.state_reason.as_deref(),
            self.closed_at,
            self.code.as_ref().map(|code| code.0.as_str()),
            self.code_at,
            facts.to_string(),
            self.last_asked_at,
            self.triggered_at,
            self.answers_lost_at,
            next_ask_at,
            self.seen_at
        ]
    }

    /// Whether its answers may move the current code (R1, R5).
    pub(crate) fn is_undisputed(&self) -> bool {
        self.state == EpochState::Live
    }

    pub(crate) fn learn(&mut self, info: &DeviceInformation, at: Timestamp) {
        if self.facts.learn(info, at) {
            self.trigger(at, Trigger::FindMy);
        }
        self.udid = info.udid.clone().or(self.udid.take());
    }

    pub(crate) fn learn_security(&mut self, info: &SecurityInfo) {
        self.facts.learn_security(info);
    }

    /// Asks again at once (R8).
    pub(crate) fn trigger(&mut self, at: Timestamp, trigger: Trigger) {
        self.triggered_at = self.triggered_at.max(Some(at));
        if trigger.may_have_lost_an_answer() {
            self.answers_lost_at = self.answers_lost_at.max(Some(at));
        }
    }

    /// Why the device is not asked for a code, if it is not (R10).
    pub(crate) fn why_not_asked(&self, product_type: Option<&ProductType>) -> Option<NotAsked> {
        asking::why_not(&asking::Known {
            kind: self.kind,
            family: product_type.map(ProductType::family),
            multi_user: self.facts.multi_user,
            supervised: self.facts.supervised,
            user_enrollment: self.facts.user_enrollment,
        })
    }

    pub(crate) fn ask_history(&self, pending: bool) -> AskHistory {
        AskHistory {
            opened_at: self.opened_at,
            last_asked: self.last_asked_at,
            pending,
            triggered_at: self.triggered_at,
            answers_lost_at: self.answers_lost_at,
            refusal: self.facts.refusal,
        }
    }

    /// Whether the lock was allowed before its code was held (R7).
    pub(crate) fn allowed_before_escrow(&self) -> Option<guard::AllowedBeforeEscrow> {
        guard::allowed_before_escrow(&OptionHistory {
            first_true: self.facts.allowed_first_true,
            first_false: self.facts.allowed_first_false,
            first_code: self.code_at,
            first_allow: self.facts.first_allow,
        })
    }

    pub(crate) fn mac_warning(&self, family: Option<ProductFamily>) -> Option<guard::MacWarning> {
        guard::mac_warning(
            family,
            &MacFacts {
                manageable: self.facts.manageable,
                enrolled_via_dep: self.facts.enrolled_via_dep,
                find_my_at_first: self.facts.find_my_at_first,
                lock_hint_at_first: self.facts.lock_hint_at_first,
            },
        )
    }
}

/// After this long without a sign of life beside another enrollment of the same device, an enrollment has lost (R5).
const SILENT_AFTER: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 60 * 60);

/// The verbs on enrollments. See [`Escrow::enrollments`].
pub struct Enrollments<'a>(pub(crate) &'a Escrow);

impl Enrollments<'_> {
    /// Whether a poll of this enrollment needs no record: it has a live epoch that nobody disputes, and its enrolment is known to
    /// be complete.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_known(&self, connection: &ConnectionRef, enrollment: &str) -> Result<bool> {
        let (connection, enrollment) = (connection.clone(), enrollment.to_owned());
        self.0
            .db
            .read(async move |tx| {
                let epoch = Epoch::live(tx, &connection, &enrollment).await?;
                Ok(epoch.is_some_and(|epoch| epoch.is_undisputed() && epoch.enrolled_at.is_some()))
            })
            .await
    }

    /// Ends disputes (R5): where all but one of a device's live enrollments have been silent for a week, the one that
    /// was heard of is asked again, and its answer counts. Gives how many ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle_disputes(&self) -> Result<usize> {
        let escrow = self.0.clone();
        let settled = self
            .0
            .db
            .write("enrollments.settle_disputes", async move |tx| {
                // Those that end now: one side was heard of, and only one.
                let silent_since = tx.now().minus(SILENT_AFTER);
                let disputed = tx
                    .fetch_all(
                        "SELECT organisation, serial FROM epochs WHERE state = 'disputed' AND closed_at IS NULL \
                         AND serial IS NOT NULL GROUP BY organisation, serial \
                         HAVING SUM(CASE WHEN seen_at > $1 THEN 1 ELSE 0 END) = 1 LIMIT 1000",
                        params![silent_since],
                    )
                    .await?;
                let mut settled = 0;
                for row in disputed {
                    let organisation: OrganisationId = row.get("organisation")?;
                    let serial: String = row.get("serial")?;
                    let serial = serial.parse().map_err(|_| Error::Corrupt("epochs.serial"))?;
                    settled += usize::from(settle(tx, &escrow, &organisation, &serial).await?);
                }
                Ok(settled)
            })
            .await?;
        if settled > 0 {
            self.0.tell(News::Commands);
        }
        Ok(settled)
    }
}

async fn settle(
    tx: &mut Tx<'_>,
    escrow: &Escrow,
    organisation: &OrganisationId,
    serial: &SerialNumber,
) -> Result<bool> {
    let key = (organisation.clone(), serial.clone());
    let mut ledger = Ledger::new(tx, escrow);
    ledger
        .read(tx, &[], &[key.clone()].into(), &[].into())
        .await?;
    let now = ledger.now();
    let (silent, heard): (Vec<usize>, Vec<usize>) = ledger
        .open_epochs(&key)
        .into_iter()
        .filter(|at| ledger.epoch(*at).state != EpochState::Quarantined)
        .partition(|at| now.since(ledger.epoch(*at).seen_at) >= SILENT_AFTER);
    let [winner] = heard.as_slice() else {
        return Ok(false);
    };
    for loser in silent {
        let reason = "another enrollment of this device was heard of, this one was not";
        ledger.close_epoch(loser, EpochState::Silent, reason);
    }
    let epoch = ledger.epoch_mut(*winner);
    epoch.state = EpochState::Live;
    epoch.state_reason = None;
    epoch.trigger(now, Trigger::StrayAnswer);
    record::follow_up(&mut ledger, *winner);
    ledger.write(tx).await?;
    Ok(true)
}
