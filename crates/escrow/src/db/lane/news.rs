//! The thread that carries word between the processes that share a database: by `NOTIFY` of what this one tells, and `LISTEN` for
//! what the others do. Word may be lost with a connection; whoever waits looks now and then by themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Common, Message, Waiting, pause};
use crate::clock::Clock as _;
use crate::db::engine::Listener;
use crate::db::{Tx, params};

/// How long word is gathered before it goes out: what is woken for many reasons is told once.
const GATHER: Duration = Duration::from_millis(10);
/// After a listener could not be had.
const AGAIN: Duration = Duration::from_secs(1);

/// Carries word until nobody can tell any more.
pub(super) async fn run(
    common: Common,
    writer: mpsc::Sender<Message>,
    mut told: mpsc::UnboundedReceiver<&'static str>,
) {
    let us: Arc<str> = common.ids.next(common.clock.now()).to_string().into();
    let listening = tokio::task::spawn_local(listen(common, us.clone()));
    let mut words = BTreeSet::new();
    while let Some(word) = told.recv().await {
        words.insert(word);
        pause(GATHER).await;
        while let Ok(word) = told.try_recv() {
            words.insert(word);
        }
        let line = words.iter().copied().collect::<Vec<_>>().join(" ");
        words.clear();
        let text = format!("{us} {line}");
        let send = async move |tx: &mut Tx<'_>| {
            let sql = "SELECT CAST(pg_notify('lockwarden', $1) AS TEXT) AS sent";
            tx.fetch_one(sql, params![text.as_str()]).await.map(drop)
        };
        let (job, _) = Waiting::new("news", send);
        if writer.send(Message::Run(Box::new(job))).await.is_err() {
            break;
        }
    }
    // It lets go of its connection here, where that can be done.
    listening.abort();
    let _ = listening.await;
}

async fn listen(common: Common, us: Arc<str>) {
    loop {
        match Listener::start(&common.place).await {
            Ok(mut listener) => {
                // What was said meanwhile is not known.
                common.hooks.heard(None);
                while let Some(text) = listener.next().await {
                    let mut words = text.split(' ');
                    if words.next() == Some(&*us) {
                        continue;
                    }
                    for word in words {
                        common.hooks.heard(Some(word));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no word comes from other processes; what there is to do is looked for instead");
            }
        }
        pause(AGAIN).await;
    }
}
