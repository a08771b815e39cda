//! The data keys: which there are, and exchanging them. For who may manage all organisations.

use escrow::keys::KeyStatus;
use escrow::permit::{Admin, Permit};

use super::*;

#[derive(Template)]
#[template(path = "keys.html")]
pub(super) struct KeysPage {
    frame: Frame,
    status: KeyStatus,
}

async fn permit(visitor: &Visitor) -> Result<Permit<Admin>, Turned> {
    let everywhere = OrganisationId::new("*");
    let actor = &visitor.caller.actor;
    let escrow = &visitor.app.escrow;
    Ok(escrow.authorise(actor, &everywhere, "keys").await?)
}

pub(super) async fn show(visitor: Visitor) -> Shown<KeysPage> {
    let permit = permit(&visitor).await?;
    let organisation = visitor.caller.organisation(&visitor.app).await?;
    let page = KeysPage {
        status: visitor.app.escrow.keys().status(&permit).await?,
        frame: visitor.frame("Keys", &organisation).await?,
    };
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn rotate(visitor: Visitor) -> Result<Response, Turned> {
    let permit = permit(&visitor).await?;
    visitor.app.escrow.keys().rotate(&permit).await?;
    Ok(see(&visitor.back("/keys", "rotated")))
}

/// What a key is for, as one says it.
pub(super) fn purpose(word: &str) -> &'static str {
    match word {
        "cells" => "Seals codes and secrets",
        "fingerprints" => "Compares codes without opening them",
        "audit" => "Shows that the audit record was not changed",
        "checkpoints" => "Signs the ends of the audit record",
        _ => "Another use",
    }
}
