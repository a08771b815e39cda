//! What needs a person now, and how many codes are held.

use escrow::approvals::Which;
use escrow::coverage::CoverageReport;
use escrow::devices::{DeviceSummary, Filter};
use escrow::permit::{Permit, Read};

use super::*;

/// Devices named on the page, at most.
const NAMED: usize = 8;
/// Approvals that are looked at, at most.
const MOST: u32 = 100;

#[derive(Template)]
#[template(path = "today.html")]
pub(super) struct TodayPage {
    frame: Frame,
    report: CoverageReport,
    closing: Vec<DeviceSummary>,
    approvals: usize,
    has_connection: bool,
    /// The names of push certificates that end within a month, and when.
    ending: Vec<(String, Timestamp)>,
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

    fn is_quiet(&self) -> bool {
        self.closing.is_empty()
            && self.approvals == 0
            && self.ending.is_empty()
            && self.has_connection
    }
}

pub(super) async fn show(visitor: Visitor) -> Shown<TodayPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Read> = app.escrow.authorise(actor, &organisation, "today").await?;
    let report = app.escrow.coverage().report(&permit).await?;
    let closing = Filter {
        closing: true,
        ..Filter::default()
    };
    let closing = app
        .escrow
        .devices()
        .list(&permit, &closing, None, NAMED)
        .await?;
    let waiting = app
        .escrow
        .approvals()
        .list(&permit, Which::Open, MOST)
        .await?;
    let may_decide = actor
        .grants()
        .within(&organisation)
        .allow(Permission::Approve);
    let mine = waiting
        .iter()
        .filter(|one| may_decide && approvals::is_of_another(one, &visitor.caller));
    let connections = app.escrow.connections().list(&permit).await?;
    let now = app.now();
    let soon = now.plus(Duration::from_secs(30 * 24 * 60 * 60));
    let certificates = app.escrow.push_certificates().list(&permit).await?;
    let ending = certificates
        .into_iter()
        .filter(|one| {
            one.superseded_at.is_none() && one.removed_at.is_none() && one.not_after < soon
        })
        .map(|one| (one.topic, one.not_after));
    Ok(Page(
        StatusCode::OK,
        TodayPage {
            frame: visitor.frame("Today", &organisation).await?,
            report,
            closing: closing.items,
            approvals: mine.count(),
            has_connection: !connections.is_empty(),
            ending: ending.collect(),
        },
    ))
}
