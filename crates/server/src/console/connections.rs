//! What the organisation's devices and Apple are reached by, and what is wrong with it.

use escrow::business_apis::BusinessApiView;
use escrow::connections::ConnectionView;
use escrow::permit::{Permit, Read};
use escrow::push_certificates::PushCertificateView;
use escrow::server_tokens::{Problem as Trouble, ServerTokenView};

use super::*;
use crate::http::api;
use crate::http::extract::Path;

#[derive(Template)]
#[template(path = "connections.html")]
pub(super) struct ConnectionsPage {
    frame: Frame,
    mdms: Vec<ConnectionView>,
    certificates: Vec<PushCertificateView>,
    tokens: Vec<ServerTokenView>,
    business: Option<BusinessApiView>,
    /// The MDM that was just asked, and what came of it.
    tested: Option<(String, Result<String, String>)>,
}

impl ConnectionsPage {
    async fn of(visitor: &Visitor) -> Result<Self, Turned> {
        let app = &visitor.app;
        let organisation = visitor.caller.organisation(app).await?;
        let actor = &visitor.caller.actor;
        let permit: Permit<Read> = app
            .escrow
            .authorise(actor, &organisation, "connections")
            .await?;
        let mut certificates = app.escrow.push_certificates().list(&permit).await?;
        certificates.retain(|one| one.superseded_at.is_none() && one.removed_at.is_none());
        Ok(Self {
            frame: visitor.frame("Connections", &organisation).await?,
            mdms: app.escrow.connections().list(&permit).await?,
            certificates,
            tokens: app.escrow.server_tokens().list(&permit).await?,
            business: app.escrow.business_apis().get(&permit).await?,
            tested: None,
        })
    }

    fn may_test(&self) -> bool {
        self.frame.may.allow(Permission::Connections)
    }

    /// A moment by which something ends, as a badge.
    fn end(&self, at: &Timestamp) -> devices::Badge {
        let left = at.since(self.frame.now);
        let (word, class) = if *at <= self.frame.now {
            ("Ended", "bad")
        } else if left < Duration::from_secs(30 * 24 * 60 * 60) {
            ("Ends soon", "warn")
        } else {
            ("Good", "good")
        };
        devices::Badge { word, class }
    }
}

/// Who has to do what about a server token.
pub(super) fn to_do(problem: &Trouble, token: &ServerTokenView) -> &'static str {
    api::dep_tokens::to_do(*problem, token.kind)
}

pub(super) async fn list(visitor: Visitor) -> Shown<ConnectionsPage> {
    Ok(Page(StatusCode::OK, ConnectionsPage::of(&visitor).await?))
}

pub(super) async fn test(visitor: Visitor, Path(name): Path<String>) -> Shown<ConnectionsPage> {
    let found = api::test_mdm(&visitor.app, &visitor.caller, &name).await?;
    let page = ConnectionsPage {
        tested: Some((name, found)),
        ..ConnectionsPage::of(&visitor).await?
    };
    Ok(Page(StatusCode::OK, page))
}
