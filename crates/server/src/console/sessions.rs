//! Where one is signed in.

use escrow::sessions::SessionView;

use super::*;
use crate::http::extract::Path;

#[derive(Template)]
#[template(path = "sessions.html")]
pub(super) struct SessionsPage {
    frame: Frame,
    live: Vec<SessionView>,
}

pub(super) async fn list(visitor: Visitor) -> Shown<SessionsPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let mut live = app
        .escrow
        .sessions()
        .list_own(&visitor.caller.actor)
        .await?;
    let now = app.now();
    live.retain(|one| one.is_live(now));
    let frame = visitor.frame("Sessions", &organisation).await?;
    Ok(Page(StatusCode::OK, SessionsPage { frame, live }))
}

pub(super) async fn end(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    let sessions = visitor.app.escrow.sessions();
    if sessions.end_own(&visitor.caller.actor, Some(&id)).await? {
        return Ok(see(&visitor.back("/sessions", "ended")));
    }
    Err(Problem::not_found("None of your sessions has this identifier, or it has ended.").into())
}
