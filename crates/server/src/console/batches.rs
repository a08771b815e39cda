//! Many devices at once: which, what will happen to each, while it happens, and what came of it.

use activation_lock::batch::{BatchAction, LineState};
use activation_lock::explain::{self, Explanation};
use activation_lock::operation::StateName;
use escrow::batches::{
    BatchState, BatchView, Bulk, Changed, Created, HeldFor, LineView, MOST_AT_ONCE, MOST_LINES,
    NewBatch,
};
use escrow::devices::Filter;
use escrow::permit::{Lock as LockRight, Permit, Read, Refresh, Unlock as UnlockRight};

use super::devices::{Asked, Badge};
use super::form::Wish;
use super::*;
use crate::http::api::{self, BatchChange};
use crate::http::extract::Path;
use crate::tables;

/// Batches and lines a page.
const PAGE: u32 = 50;
/// A list that somebody brings is at most so large, bytes: that of a batch's lines, with room for other columns.
pub(super) const LARGEST_LIST: usize = 16 * 1024 * 1024;

/// What can be done to many.
const ACTIONS: [BatchAction; 3] = [BatchAction::Unlock, BatchAction::Lock, BatchAction::Refresh];

#[derive(Template)]
#[template(path = "batches.html")]
pub(super) struct BatchesPage {
    frame: Frame,
    batches: Vec<BatchView>,
    /// The address of the next page.
    next: Option<String>,
}

pub(super) async fn list(visitor: Visitor, uri: Uri) -> Shown<BatchesPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Read> = app
        .escrow
        .authorise(actor, &organisation, "batches")
        .await?;
    let before = asked(&uri, "cursor");
    let batches = app.escrow.batches();
    let batches = batches.list(&permit, before.as_deref(), PAGE).await?;
    let frame = visitor.frame("Bulk", &organisation).await?;
    let is_full = batches.len() == PAGE as usize;
    let last = batches.last().filter(|_| is_full);
    let next = last.map(|last| frame.link("/batches", &[("cursor", &last.id)]));
    let page = BatchesPage {
        frame,
        batches,
        next,
    };
    Ok(Page(StatusCode::OK, page))
}

/// What it does, as a heading.
pub(super) fn title(action: &BatchAction) -> &'static str {
    match action {
        BatchAction::Unlock => "Unlock devices",
        BatchAction::Lock => "Lock devices",
        BatchAction::Refresh => "Ask devices for their codes",
    }
}

fn may(frame: &Frame, action: BatchAction) -> bool {
    match action {
        BatchAction::Unlock => frame.may_unlock(),
        BatchAction::Lock => frame.may_lock(),
        BatchAction::Refresh => frame.may_refresh(),
    }
}

/// How a batch stands, in a word and a colour.
pub(super) fn badge(batch: &BatchView) -> Badge {
    let (word, class) = match batch.state {
        BatchState::Draft => ("Not started", "calm"),
        BatchState::Running => ("Running", "calm"),
        BatchState::Paused => ("Paused", "warn"),
        BatchState::Cancelled => ("Cancelled", "calm"),
        BatchState::Ended if is_well(batch) => ("Done", "good"),
        BatchState::Ended => ("Done, not all of it", "warn"),
    };
    Badge { word, class }
}

/// Whether every device came to a good end.
fn is_well(batch: &BatchView) -> bool {
    batch.counts.iter().all(|count| tone(count.word) == "good")
}

/// How the lines of a batch stand that have this word, as a heading.
pub(super) fn spoken(word: &str) -> &'static str {
    if let Ok(state) = word.parse::<LineState>() {
        return match state {
            LineState::Ready => "To be done",
            LineState::Asked => "Asked",
            LineState::NotASerial => "No serial number",
            LineState::Duplicate => "Named twice",
            LineState::UnknownDevice => "Not known here",
            LineState::NoCode => "No code held",
            LineState::NoProductType => "No product type",
            LineState::NotLocked => "Not locked",
            LineState::AlreadyLocked => "Locked already",
            LineState::NotAssigned => "On none of our lists",
            LineState::InProgress => "Another was under way",
            LineState::NotEnrolled => "In no MDM",
        };
    }
    word.parse::<StateName>()
        .map_or("Not known", |state| unlock::heading(&state))
}

/// The colour of a word.
fn tone(word: &str) -> &'static str {
    match word {
        "unlocked" | "locked" | "not_locked" | "already_locked" | "asked" | "duplicate" => "good",
        "ready" | "queued" | "running" | "cancelled" => "calm",
        "waiting" | "probably_unlocked" | "in_progress" => "warn",
        _ => "bad",
    }
}

/// A part of the lines, by how they stand.
pub(super) struct Part {
    word: &'static str,
    heading: &'static str,
    class: &'static str,
    lines: i64,
    link: String,
    is_chosen: bool,
}

/// Which devices, before there is a batch.
#[derive(Template)]
#[template(path = "batch_new.html")]
pub(super) struct NewPage {
    frame: Frame,
    action: BatchAction,
    serials: String,
    /// In place of serial numbers: the devices that a list shows, by what its address asks for.
    filter: Option<String>,
    message: String,
    wish: Wish,
}

impl NewPage {
    fn actions(&self) -> impl Iterator<Item = BatchAction> {
        ACTIONS
            .into_iter()
            .filter(|action| may(&self.frame, *action))
    }

    fn filter_in_words(&self) -> String {
        let filter = self.filter.as_deref().unwrap_or_default();
        Asked::read(filter).in_words()
    }
}

pub(super) async fn ask(visitor: Visitor, uri: Uri) -> Shown<NewPage> {
    let organisation = visitor.caller.organisation(&visitor.app).await?;
    let frame = visitor.frame("Bulk", &organisation).await?;
    let query = uri.query().unwrap_or_default().as_bytes();
    let named = url::form_urlencoded::parse(query)
        .filter(|(name, _)| name == "serial")
        .map(|(_, serial)| serial.into_owned());
    let page = NewPage {
        action: asked(&uri, "action")
            .and_then(|action| action.parse().ok())
            .unwrap_or(BatchAction::Unlock),
        serials: named.collect::<Vec<_>>().join("\n"),
        filter: asked(&uri, "filter"),
        message: String::new(),
        wish: Wish::new(&uri),
        frame,
    };
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn create(visitor: Visitor, form: Form) -> Result<Response, Turned> {
    let organisation = visitor.caller.organisation(&visitor.app).await?;
    let action = form.text("action").parse();
    let action: BatchAction =
        action.map_err(|_| Problem::bad_request("It is not said what is to be done to them."))?;
    let made = match action {
        BatchAction::Unlock => create_as::<UnlockRight>(&visitor, &organisation, &form).await,
        BatchAction::Lock => create_as::<LockRight>(&visitor, &organisation, &form).await,
        BatchAction::Refresh => create_as::<Refresh>(&visitor, &organisation, &form).await,
    };
    match made? {
        Ok(id) => Ok(see(&visitor.at(&format!("/batches/{id}")))),
        Err(problem) => {
            let page = NewPage {
                frame: visitor.frame("Bulk", &organisation).await?,
                action,
                serials: form.text("serials").to_owned(),
                filter: Some(form.text("filter").to_owned()).filter(|filter| !filter.is_empty()),
                message: form.text("message").to_owned(),
                wish: Wish::again(&form, &problem),
            };
            Ok(Page(StatusCode::BAD_REQUEST, page).into_response())
        }
    }
}

/// Gives the identifier of the draft, or what is wrong with what was sent.
async fn create_as<P: Bulk>(
    visitor: &Visitor,
    organisation: &OrganisationId,
    form: &Form,
) -> Result<Result<String, Problem>, Turned> {
    let (app, actor) = (&visitor.app, &visitor.caller.actor);
    let permit: Permit<P> = app.escrow.authorise(actor, organisation, "batch").await?;
    let (new, serials) = match wish(form).and_then(|new| Ok((new, listed(form)?))) {
        Ok(read) => read,
        Err(problem) => return Ok(Err(problem)),
    };
    let filter = form.text("filter");
    let serials = if filter.is_empty() {
        serials
    } else {
        let read: Permit<Read> = app.escrow.authorise(actor, organisation, "devices").await?;
        every_one(app, &read, &Asked::read(filter).filter()).await?
    };
    if serials.is_empty() {
        return Ok(Err(Problem::bad_request("No device is named.")));
    }
    let batches = app.escrow.batches();
    let batch = match batches.create(&permit, new).await? {
        Created::New(batch) | Created::Same(batch) => batch,
        Created::KeyReused => return Err(Problem::failed().into()),
    };
    let mut first = 1;
    for stretch in serials.chunks(MOST_AT_ONCE) {
        let changed = batches
            .add_lines(&permit, &batch.id, first, stretch.to_vec())
            .await?;
        if let Changed::Done(view) = changed {
            first = view.lines + 1;
        } else {
            // What was brought so far is not what was meant.
            batches.cancel(&permit, &batch.id).await?;
            let too_many = format!("A batch has at most {MOST_LINES} lines.");
            return Ok(Err(Problem::bad_request(too_many)));
        }
    }
    Ok(Ok(batch.id))
}

fn wish(form: &Form) -> Result<NewBatch, Problem> {
    let shown = form.text("message").trim();
    Ok(NewBatch {
        reason: api::reason(form.text("reason"))?.to_owned(),
        requester: None,
        message: (!shown.is_empty())
            .then(|| api::message(shown))
            .transpose()?,
        insists: form.is_ticked("insist"),
        idempotency: None,
    })
}

/// The serial numbers that were typed or pasted, and those of a file.
fn listed(form: &Form) -> Result<Vec<String>, Problem> {
    let mut serials: Vec<String> = form
        .text("serials")
        .split(|c: char| c.is_whitespace() || c == ',' || c == ';')
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect();
    let file = tables::serials(form.bytes("file"));
    serials.extend(file.map_err(|error| {
        Problem::bad_request(crate::http::extract::sentence(&error.to_string()))
    })?);
    Ok(serials)
}

/// Every device that fits, a page after another.
async fn every_one(
    app: &App,
    permit: &Permit<Read>,
    filter: &Filter,
) -> Result<Vec<String>, Turned> {
    let devices = app.escrow.devices();
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = devices.list(permit, filter, cursor.as_deref(), 500).await?;
        found.extend(page.items.iter().map(|device| device.serial.to_string()));
        cursor = page.next;
        let is_enough = i64::try_from(found.len()).is_ok_and(|found| found > MOST_LINES);
        if cursor.is_none() || is_enough {
            return Ok(found);
        }
    }
}

#[derive(Template)]
#[template(path = "batch.html")]
pub(super) struct BatchPage {
    frame: Frame,
    batch: BatchView,
    parts: Vec<Part>,
    lines: Vec<Line>,
    /// The address of the next page of lines.
    next: Option<String>,
    /// The address of this page.
    here: String,
    wish: Wish,
}

/// A line, in words.
struct Line {
    view: LineView,
    heading: &'static str,
    class: &'static str,
    words: Explanation,
    link: Option<String>,
}

impl BatchPage {
    fn may(&self) -> bool {
        may(&self.frame, self.batch.action)
    }

    fn badge(&self) -> Badge {
        badge(&self.batch)
    }

    fn is_draft(&self) -> bool {
        self.batch.state == BatchState::Draft
    }

    fn is_running(&self) -> bool {
        self.batch.state == BatchState::Running
    }

    fn is_paused(&self) -> bool {
        self.batch.state == BatchState::Paused
    }

    /// Whether something of it goes on by itself.
    fn is_live(&self) -> bool {
        self.is_running() || self.batch.under_way() > 0
    }

    fn about(&self) -> &'static str {
        explain::batch::about(self.batch.action)
    }

    fn asks_others(&self) -> bool {
        self.batch.action != BatchAction::Refresh
    }

    fn held(&self) -> Option<&'static str> {
        Some(match self.batch.held_for? {
            HeldFor::Restored => {
                "The database was restored or copied, and nothing goes on by itself after that. Look at what was under way before you let it go on."
            }
            HeldFor::NotAllowed => {
                "Whoever started it may not do that any more. It goes on for whoever says so."
            }
        })
    }

    /// How fast, and until when, as far as that can be told.
    fn pace(&self) -> Option<String> {
        let rate = self.batch.rate?;
        let left = api::seconds_left(&self.batch)?;
        let left = Duration::try_from_secs_f64(left).ok()?;
        let left = match length(left) {
            Some(length) => format!("about {length} left"),
            None => "less than a minute left".to_owned(),
        };
        Some(if rate >= 1.0 {
            format!("{rate:.0} a second, {left}")
        } else {
            format!("{:.0} a minute, {left}", rate * 60.0)
        })
    }
}

pub(super) async fn show(visitor: Visitor, Path(id): Path<String>, uri: Uri) -> Shown<BatchPage> {
    let app = &visitor.app;
    let (permit, batch) = api::read_batch(app, &visitor.caller, &id).await?;
    let frame = visitor
        .frame(title(&batch.action), permit.organisation())
        .await?;
    let chosen = asked(&uri, "state");
    let after = asked(&uri, "after").and_then(|after| after.parse().ok());
    let batches = app.escrow.batches();
    let lines = batches
        .lines(
            &permit,
            &id,
            chosen.as_deref(),
            after.unwrap_or(0),
            i64::from(PAGE),
        )
        .await?;
    let place = format!("/batches/{id}");
    let of_part = |word: &str| frame.link(&place, &[("state", word)]);
    let parts = batch.counts.iter().map(|count| Part {
        word: count.word,
        heading: spoken(count.word),
        class: tone(count.word),
        lines: count.lines,
        link: of_part(count.word),
        is_chosen: chosen.as_deref() == Some(count.word),
    });
    let next = lines
        .last()
        .filter(|_| lines.len() == PAGE as usize)
        .map(|last| {
            let after = last.line.to_string();
            let mut pairs = vec![("after", after.as_str())];
            pairs.extend(chosen.as_deref().map(|word| ("state", word)));
            frame.link(&place, &pairs)
        });
    let path = match batch.action {
        BatchAction::Lock => "locks",
        BatchAction::Unlock | BatchAction::Refresh => "unlocks",
    };
    let page = BatchPage {
        parts: parts.collect(),
        lines: lines
            .into_iter()
            .map(|view| Line {
                heading: spoken(view.stands.word()),
                class: tone(view.stands.word()),
                words: api::line_in_words(&view.stands),
                link: view.operation.as_ref().map(|id| format!("/{path}/{id}")),
                view,
            })
            .collect(),
        next,
        here: uri
            .path_and_query()
            .map_or("/batches", |here| here.as_str())
            .to_owned(),
        wish: Wish::new(&uri),
        batch,
        frame,
    };
    Ok(Page(StatusCode::OK, page))
}

/// The results as a table.
pub(super) async fn results(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    Ok(api::results_table(&visitor.app, &visitor.caller, &id).await?)
}

pub(super) async fn start(
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let caller = approved(&visitor, &id, &form).await?;
    turn_as(&visitor, &caller, &id, BatchChange::Start, "batch-started").await
}

pub(super) async fn pause(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    turn_as(&visitor, caller, &id, BatchChange::Pause, "batch-paused").await
}

pub(super) async fn resume(
    visitor: Visitor,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Turned> {
    let caller = approved(&visitor, &id, &form).await?;
    turn_as(&visitor, &caller, &id, BatchChange::Resume, "batch-resumed").await
}

pub(super) async fn cancel(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    let done = "batch-cancelled";
    turn_as(&visitor, caller, &id, BatchChange::Cancel, done).await
}

/// Who asks, with how they mean to do what takes other people.
async fn approved(visitor: &Visitor, id: &str, form: &Form) -> Result<Caller, Turned> {
    let (_, batch) = api::read_batch(&visitor.app, &visitor.caller, id).await?;
    let actor = form::leave(visitor, form, &batch.reason)?;
    Ok(visitor.caller.acting_as(actor))
}

async fn turn_as(
    visitor: &Visitor,
    caller: &Caller,
    id: &str,
    change: BatchChange<'_>,
    done: &str,
) -> Result<Response, Turned> {
    api::change_batch::<Turned>(&visitor.app, caller, id, change).await?;
    Ok(see(&visitor.back(&format!("/batches/{id}"), done)))
}
