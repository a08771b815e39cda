//! The server itself: versions, database, queue, the processes on it. For who may see all organisations.

use escrow::LiveSettings;
use escrow::operations::{Kind, Queue, Waiting};
use escrow::permit::{Permit, Read};
use escrow::replicas::ReplicaView;

use super::*;

#[derive(Template)]
#[template(path = "system.html")]
pub(super) struct SystemPage {
    frame: Frame,
    version: &'static str,
    database: String,
    mebibytes: u64,
    unlocks: Queue,
    locks: Queue,
    waiting: Vec<Waiting>,
    replicas: Vec<ReplicaView>,
    seconds_off: i64,
}

pub(super) async fn show(visitor: Visitor) -> Shown<SystemPage> {
    let app = &visitor.app;
    let actor = &visitor.caller.actor;
    let organisation = visitor.caller.organisation(app).await?;
    let everywhere = OrganisationId::new("*");
    let _: Permit<Read> = app.escrow.authorise(actor, &everywhere, "system").await?;
    let escrow = &app.escrow;
    let database = match escrow.live_settings().await? {
        LiveSettings::Postgres { version, .. } => format!("PostgreSQL {version}"),
        LiveSettings::Sqlite { .. } => "SQLite, in the data folder".to_owned(),
    };
    Ok(Page(
        StatusCode::OK,
        SystemPage {
            frame: visitor.frame("System", &organisation).await?,
            version: env!("CARGO_PKG_VERSION"),
            database,
            mebibytes: escrow.database_bytes().await? >> 20,
            unlocks: escrow.operations().queue(Kind::Unlock).await?,
            locks: escrow.operations().queue(Kind::Lock).await?,
            waiting: escrow.operations().waiting().await?,
            replicas: escrow.replicas().list().await?,
            seconds_off: escrow.clock_behind() / 1000,
        },
    ))
}
