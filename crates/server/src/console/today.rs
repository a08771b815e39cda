//! What needs a person now, how many codes are held, and how both went lately.

use escrow::approvals::Which;
use escrow::batches::{BatchState, BatchView};
use escrow::connections::UnlockVia;
use escrow::coverage::{CoverageDay, CoverageReport};
use escrow::devices::{DeviceSummary, Filter};
use escrow::operations::{InReview, Kind, Week};
use escrow::permit::{Permit, Read};
use escrow::push_certificates::PushCertificateView;
use escrow::server_tokens::ServerTokenView;
use time::OffsetDateTime;
use time::macros::format_description;

use super::charts::{Band, Bar, Chart};
use super::*;

/// Devices named on the page, at most, for each reason.
const NAMED: u32 = 8;
/// Approvals and batches that are looked at, at most.
const MOST: u32 = 100;
/// So far back the charts go.
const DAYS: u32 = 90;
const WEEKS: u32 = 13;
/// What ends within that is told of.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DAY: i64 = 24 * 60 * 60 * 1000;

#[derive(Template)]
#[template(path = "today.html")]
pub(super) struct TodayPage {
    frame: Frame,
    report: CoverageReport,
    needs: Needs,
    coverage: Chart,
    unlocks: Chart,
}

/// A step on the way to the first code.
struct Step {
    is_done: bool,
    what: &'static str,
    how: &'static str,
    link: Option<&'static str>,
}

/// What needs a person.
struct Needs {
    has_connection: bool,
    /// Somebody can call Apple: a certificate is kept, or an MDM calls for us.
    can_call: bool,
    approvals: usize,
    closing: Vec<DeviceSummary>,
    review: Vec<InReview>,
    /// How many there are of them.
    in_review: i64,
    unknown: Vec<String>,
    batches: Vec<BatchView>,
    certificates: Vec<PushCertificateView>,
    tokens: Vec<ServerTokenView>,
    /// What is wrong with Apple's business API.
    business: Option<String>,
    /// MDMs that did not take our commands, by name, and why.
    silent: Vec<(String, String)>,
}

impl Needs {
    fn has_more_in_review(&self) -> bool {
        i64::try_from(self.review.len()).is_ok_and(|shown| shown < self.in_review)
    }

    fn is_nothing(&self) -> bool {
        self.has_connection
            && self.approvals == 0
            && self.closing.is_empty()
            && self.review.is_empty()
            && self.unknown.is_empty()
            && self.batches.is_empty()
            && self.certificates.is_empty()
            && self.tokens.is_empty()
            && self.business.is_none()
            && self.silent.is_empty()
    }
}

impl TodayPage {
    fn asked(&self) -> i64 {
        self.report.covered + self.report.missing
    }

    /// Of those that should have one, how many in a hundred have their code held; rounded down, so that all are all.
    fn percent(&self) -> i64 {
        match self.asked() {
            0 => 0,
            asked => self.report.covered * 100 / asked,
        }
    }

    /// The way to the first code; nothing once it is held.
    fn first_steps(&self) -> Vec<Step> {
        let report = &self.report;
        let is_heard = report.covered + report.missing + report.exempt > 0;
        if report.covered > 0 && self.needs.has_connection {
            return Vec::new();
        }
        vec![
            Step {
                is_done: true,
                what: "Sign in",
                how: "You did.",
                link: None,
            },
            Step {
                is_done: self.needs.has_connection,
                what: "Connect an MDM",
                how: "It tells of its devices, and takes the questions for their codes.",
                link: Some("/connections/mdm/new"),
            },
            Step {
                is_done: self.needs.can_call,
                what: "Keep the push certificate",
                how: "Apple is called with it. Not where the MDM calls Apple.",
                link: Some("/connections"),
            },
            Step {
                is_done: is_heard,
                what: "Hear of a device",
                how: "Its next poll or its enrolment is enough: the MDM\u{2019}s webhooks have to come here.",
                link: None,
            },
            Step {
                is_done: report.covered > 0,
                what: "Hold its code",
                how: "It is asked for by itself. A device hands it out in the 15 days after it was supervised.",
                link: Some("/devices"),
            },
        ]
    }

    fn of_review(&self, one: &InReview) -> String {
        let all = match one.kind {
            Kind::Unlock => "unlocks",
            Kind::Lock => "locks",
        };
        format!("/{all}/{}", one.id)
    }

    fn has_ended(&self, at: &Timestamp) -> bool {
        *at <= self.frame.now
    }
}

pub(super) async fn show(visitor: Visitor) -> Shown<TodayPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, "today").await?;
    let coverage = app.escrow.coverage();
    let page = TodayPage {
        frame: visitor.frame("Today", &organisation).await?,
        report: coverage.report(&permit).await?,
        needs: needs(&visitor, &permit).await?,
        coverage: of_days(&coverage.days(&permit, DAYS).await?, app.now()),
        unlocks: of_weeks(&app.escrow.operations().outcomes(&permit, WEEKS).await?),
    };
    Ok(Page(StatusCode::OK, page))
}

async fn needs(visitor: &Visitor, permit: &Permit<Read>) -> Result<Needs, Turned> {
    let (escrow, now) = (&visitor.app.escrow, visitor.app.now());
    let soon = now.plus(SOON);
    let closing = Filter {
        closing: true,
        ..Filter::default()
    };
    let closing = escrow
        .devices()
        .list(permit, &closing, None, NAMED as usize)
        .await?;
    let mut waiting = escrow.approvals().list(permit, Which::Open, MOST).await?;
    let may_decide = visitor
        .caller
        .actor
        .grants()
        .within(permit.organisation())
        .allow(Permission::Approve);
    waiting.retain(|one| may_decide && approvals::is_of_another(one, &visitor.caller));
    let (review, in_review) = escrow.operations().in_review(permit, NAMED).await?;
    let unknown = escrow.locks().unknown(permit, NAMED).await?;
    let mut batches = escrow.batches().list(permit, None, 4 * NAMED).await?;
    batches.retain(|batch| batch.state == BatchState::Paused);
    let known = escrow.connections().list(permit).await?;
    let mut certificates = escrow.push_certificates().list(permit).await?;
    certificates.retain(|one| one.superseded_at.is_none() && one.removed_at.is_none());
    let delegated = known
        .iter()
        .any(|one| one.unlock_via == UnlockVia::Delegated);
    let can_call = delegated || !certificates.is_empty();
    certificates.retain(|one| one.not_after < soon);
    let mut tokens = escrow.server_tokens().list(permit).await?;
    tokens.retain(|one| one.problem.is_some() || one.expires_at.is_some_and(|at| at < soon));
    let business = escrow.business_apis().get(permit).await?;
    let connections = escrow.connections();
    Ok(Needs {
        has_connection: !known.is_empty(),
        can_call,
        approvals: waiting.len(),
        closing: closing.items,
        review,
        in_review,
        unknown: unknown.iter().map(ToString::to_string).collect(),
        batches,
        certificates,
        tokens,
        business: business.and_then(|one| one.problem).map(|(what, _)| what),
        silent: connections.not_taking_commands(permit).await?,
    })
}

/// A day as it is written.
fn day(at: Timestamp) -> String {
    let form = format_description!("[year]-[month]-[day]");
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .and_then(|at| at.format(form).ok())
        .unwrap_or_default()
}

fn of_days(days: &[CoverageDay], now: Timestamp) -> Chart {
    let today = now.0.div_euclid(DAY);
    // A day on which nobody looked is empty.
    let bar = |number: i64| Bar {
        label: day(Timestamp(number * DAY)),
        values: match days.iter().find(|one| one.day == number) {
            Some(one) => vec![one.covered, one.missing - one.closed, one.closed],
            None => vec![0; 3],
        },
    };
    Chart {
        title: "Devices that should have a code, by whether it is held, day by day",
        bands: vec![
            Band {
                name: "Code held",
                class: "good",
            },
            Band {
                name: "Asked for",
                class: "warn",
            },
            Band {
                name: "Too late",
                class: "bad",
            },
        ],
        bars: (today - i64::from(DAYS) + 1..=today).map(bar).collect(),
    }
}

fn of_weeks(weeks: &[Week]) -> Chart {
    use activation_lock::operation::StateName;
    let band = |state: StateName| match state {
        StateName::Unlocked | StateName::NotLocked => 0,
        StateName::ProbablyUnlocked | StateName::NeedsReview => 1,
        StateName::Rejected => 2,
        _ => 3,
    };
    let bar = |week: &Week| {
        let mut values = vec![0; 4];
        for (state, count) in &week.outcomes {
            values[band(*state)] += count;
        }
        let label = day(week.began_at);
        Bar { label, values }
    };
    Chart {
        title: "Unlocks that ended, by how, week by week",
        bands: vec![
            Band {
                name: "Unlocked, or not locked",
                class: "good",
            },
            Band {
                name: "In doubt",
                class: "warn",
            },
            Band {
                name: "Every code refused",
                class: "bad",
            },
            Band {
                name: "Cancelled",
                class: "calm",
            },
        ],
        bars: weeks.iter().map(bar).collect(),
    }
}
