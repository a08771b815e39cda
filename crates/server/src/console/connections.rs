//! What the organisation's devices and Apple are reached by, and what is wrong with it.

use escrow::business_apis::BusinessApiView;
use escrow::connections::{ConnectionKind, ConnectionView, NewConnection, UnlockVia};
use escrow::permit::{Connections, Permit, Read};
use escrow::push_certificates::PushCertificateView;
use escrow::server_tokens::{Problem as Trouble, ServerTokenView};

use super::form::Wish;
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

/// What can be connected.
const KINDS: [(ConnectionKind, &str); 3] = [
    (ConnectionKind::NanoMdm, "NanoMDM"),
    (ConnectionKind::NanoHub, "NanoHUB"),
    (ConnectionKind::MicroMdm, "MicroMDM"),
];

#[derive(Template)]
#[template(path = "mdm_new.html")]
pub(super) struct NewMdmPage {
    frame: Frame,
    kind: ConnectionKind,
    name: String,
    base_url: String,
    is_delegated: bool,
    wish: Wish,
}

impl NewMdmPage {
    fn kinds(&self) -> &'static [(ConnectionKind, &'static str)] {
        &KINDS
    }
}

#[derive(Template)]
#[template(path = "mdm_made.html")]
pub(super) struct MdmMadePage {
    frame: Frame,
    added: api::AddedMdm,
}

impl MdmMadePage {
    fn is_nanomdm(&self) -> bool {
        self.added.view.kind == ConnectionKind::NanoMdm
    }
}

pub(super) async fn ask_mdm(visitor: Visitor, uri: Uri) -> Shown<NewMdmPage> {
    let organisation = visitor.caller.organisation(&visitor.app).await?;
    let page = NewMdmPage {
        frame: visitor.frame("Connect an MDM", &organisation).await?,
        kind: ConnectionKind::NanoMdm,
        name: String::new(),
        base_url: String::new(),
        is_delegated: false,
        wish: Wish::new(&uri),
    };
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn add_mdm(visitor: Visitor, form: Form) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = form::leave(&visitor, &form, "an MDM is connected")?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&actor, &organisation, "connections")
        .await?;
    let kind = ConnectionKind::from_name(form.text("kind")).unwrap_or(ConnectionKind::NanoMdm);
    let is_delegated = form.is_ticked("delegated");
    let (hook_auth, prefix) = api::usual_of_mdm(kind);
    let new = NewConnection {
        name: form.text("name").trim().to_owned(),
        kind,
        base_url: form.text("base_url").trim().to_owned(),
        path_prefix: prefix.to_owned(),
        // Each of these MDMs has one API user, named after itself (mdm-connectors, 1 to 3).
        username: kind.as_str().to_owned(),
        api_key: form.secret("api_key"),
        hook_auth,
        hmac_secret: None,
        unlock_via: match is_delegated {
            true => UnlockVia::Delegated,
            false => UnlockVia::Own,
        },
        max_rate: None,
    };
    let added = if new.api_key.trim().is_empty() {
        Err(Problem::bad_request("The key of its API is blank.").into())
    } else {
        api::add_mdm::<Turned>(app, &permit, new).await
    };
    let frame = visitor.frame("Connect an MDM", &organisation).await?;
    match added {
        Ok(added) => Ok(Page(StatusCode::CREATED, MdmMadePage { frame, added }).into_response()),
        Err(Turned::Problem(problem)) => {
            let page = NewMdmPage {
                frame,
                kind,
                name: form.text("name").to_owned(),
                base_url: form.text("base_url").to_owned(),
                is_delegated,
                wish: Wish::again(&form, &problem),
            };
            Ok(Page(problem.status(), page).into_response())
        }
        Err(turned) => Err(turned),
    }
}

/// Keeps a push certificate: the PEM of the certificate and of its key, in one file or in two.
pub(super) async fn add_certificate(visitor: Visitor, form: Form) -> Result<Response, Turned> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = form::leave(&visitor, &form, "a push certificate is kept")?;
    let permit: Permit<Connections> = app
        .escrow
        .authorise(&actor, &organisation, "push certificates")
        .await?;
    let mut pem = zeroize::Zeroizing::new(Vec::new());
    for name in ["certificate", "key"] {
        pem.extend_from_slice(form.bytes(name));
        pem.push(b'\n');
    }
    let new = api::read_certificate(&pem)?;
    app.escrow.push_certificates().add(&permit, new).await?;
    Ok(see(&visitor.back("/connections", "certificate")))
}
