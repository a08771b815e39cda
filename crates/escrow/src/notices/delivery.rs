//! Deliveries: a notice on its way to one recipient of one channel.

use std::time::Duration;

use activation_lock::time::{DAY, Timestamp};
use serde_json::Value as Json;
use zeroize::Zeroizing;

use super::{
    CHANNEL_SECRET, CHANNEL_TARGET, ChannelView, NoticeKind, Notices, PREVIOUS_CHANNEL_SECRET,
};
use crate::db::{Row, Tx, params};
use crate::news::News;
use crate::{Error, Escrow, Result};

/// A delivery that was begun is another's after that.
const LEASE: Duration = Duration::from_secs(120);
/// Between two tries: at first, and at most; and at most where the far end asks for it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3_600);
/// After so many days a delivery is given up.
const GIVEN_UP_AFTER: u32 = 3;
/// So many days what has ended is kept.
const KEPT_FOR: u32 = 90;

/// A delivery that this process makes now.
pub struct Delivery {
    /// The notice, which is the same however often it is sent.
    pub notice: String,
    /// What it tells of.
    pub kind: NoticeKind,
    /// When that was.
    pub created_at: Timestamp,
    /// What it says, a JSON object.
    pub text: Json,
    /// Where it goes.
    pub channel: ChannelView,
    /// To whom a mail goes; empty when there is nobody.
    pub recipient: String,
    /// Where a webhook is posted to.
    pub target: Option<Zeroizing<String>>,
    /// What the channel signs or signs in with: the one of now first.
    pub secrets: Vec<Zeroizing<String>>,
    key: Key,
}

/// Which delivery, and the how-manyth try.
#[derive(Clone)]
struct Key {
    organisation: String,
    notice: String,
    channel: String,
    recipient: String,
    attempts: i64,
}

impl Key {
    fn of(row: &Row) -> Result<Self> {
        Ok(Self {
            organisation: row.get("organisation")?,
            notice: row.get("notice")?,
            channel: row.get("channel")?,
            recipient: row.get("recipient")?,
            attempts: row.get::<i64>("attempts")? + 1,
        })
    }
}

/// What a far end said to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Yes,
    /// Not now: in words, why; and how long to wait, if it said so.
    Later(String, Option<Duration>),
    /// Never.
    Never(String),
}

impl Notices<'_> {
    /// Waits until something may have to be sent. A wake-up that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.told(News::Notices).await;
    }

    /// Takes a delivery that is due, for two minutes; or tells when the next one is. One that cannot be sent, since its channel's
    /// secret does not open, is given up: it must not stand in the way of all others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self) -> Result<Result<Delivery, Option<Timestamp>>> {
        let escrow = self.0.clone();
        self.0
            .db
            .write("notices.claim", async move |tx| {
                let now = tx.now();
                let row = tx
                    .fetch_optional(
                        "SELECT organisation, notice, channel, recipient, attempts, due_at FROM notice_deliveries \
                         WHERE state = 'queued' ORDER BY due_at LIMIT 1",
                        params![],
                    )
                    .await?;
                let Some(row) = row else { return Ok(Err(None)) };
                let due: Timestamp = row.get("due_at")?;
                if due > now {
                    return Ok(Err(Some(due)));
                }
                let key = Key::of(&row)?;
                // Whoever takes it and dies leaves it to the next one.
                tx.execute(
                    "UPDATE notice_deliveries SET due_at = $5, leased_until = $5, attempts = $6 \
                     WHERE organisation = $1 AND notice = $2 AND channel = $3 AND recipient = $4",
                    params![
                        key.organisation.as_str(),
                        key.notice.as_str(),
                        key.channel.as_str(),
                        key.recipient.as_str(),
                        now.plus(LEASE),
                        key.attempts
                    ],
                )
                .await?;
                match open(tx, &escrow, &key).await {
                    Ok(delivery) => Ok(Ok(delivery)),
                    Err(Error::Database(fault)) => Err(fault.into()),
                    Err(error) => {
                        tracing::error!(%error, channel = key.channel, "a notice cannot be sent, and is given up");
                        conclude(tx, &key, &Taken::Never(error.to_string()), Timestamp(0), 0).await?;
                        Ok(Err(Some(now)))
                    }
                }
            })
            .await
    }

    /// Puts on record what came of a delivery. The answer to a try after which another was made says nothing any more.
    ///
    /// # Errors
    /// When the database fails: then it is sent again, under the same identifier.
    pub async fn finish(&self, delivery: &Delivery, taken: &Taken) -> Result<()> {
        let (key, taken, created_at) = (delivery.key.clone(), taken.clone(), delivery.created_at);
        let mut jitter = [0; 1];
        self.0.random().fill(&mut jitter);
        self.0
            .db
            .write("notices.finish", async move |tx| {
                conclude(tx, &key, &taken, created_at, jitter[0]).await
            })
            .await
    }

    /// Forgets what ended ninety days ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep(&self) -> Result<()> {
        self.0
            .db
            .write("notices.sweep", async move |tx| {
                let before = tx.now().minus(DAY * KEPT_FOR);
                tx.execute("DELETE FROM notice_deliveries WHERE ended_at < $1", params![before])
                    .await?;
                tx.execute(
                    "DELETE FROM notices WHERE created_at < $1 AND NOT EXISTS (SELECT 1 FROM notice_deliveries \
                     WHERE notice_deliveries.organisation = notices.organisation AND notice = notices.id)",
                    params![before],
                )
                .await?;
                Ok(())
            })
            .await
    }

    /// The channels where nothing is taken, for `doctor`: name, since when, and why.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn failing(&self) -> Result<Vec<(String, Timestamp, String)>> {
        self.0
            .db
            .read(async move |tx| {
                tx.fetch_all(
                    "SELECT name, failing_since, failure FROM notice_channels \
                     WHERE removed_at IS NULL AND failing_since IS NOT NULL ORDER BY name",
                    params![],
                )
                .await?
                .iter()
                .map(|row| {
                    let failure: Option<String> = row.get("failure")?;
                    Ok((
                        row.get("name")?,
                        row.get("failing_since")?,
                        failure.unwrap_or_default(),
                    ))
                })
                .collect()
            })
            .await
    }
}

async fn conclude(
    tx: &mut Tx<'_>,
    key: &Key,
    taken: &Taken,
    created_at: Timestamp,
    jitter: u8,
) -> Result<()> {
    let now = tx.now();
    let is_over = now.since(created_at) >= DAY * GIVEN_UP_AFTER;
    let (state, failure, due) = match taken {
        Taken::Yes => ("sent", None, None),
        Taken::Never(why) => ("given_up", Some(why), None),
        Taken::Later(why, _) if is_over => ("given_up", Some(why), None),
        Taken::Later(why, wait) => {
            let own = pause(key.attempts, jitter);
            let wait = wait.map_or(own, |wait| wait.clamp(own, LONGEST_WAIT));
            ("queued", Some(why), Some(now.plus(wait)))
        }
    };
    let counts = tx
        .execute(
            "UPDATE notice_deliveries SET state = $6, failure = $7, due_at = COALESCE($8, due_at), leased_until = NULL, \
             ended_at = $9 WHERE organisation = $1 AND notice = $2 AND channel = $3 AND recipient = $4 AND attempts = $5 \
             AND state = 'queued'",
            params![
                key.organisation.as_str(),
                key.notice.as_str(),
                key.channel.as_str(),
                key.recipient.as_str(),
                key.attempts,
                state,
                failure.map(String::as_str),
                due,
                (state != "queued").then_some(now)
            ],
        )
        .await?;
    if counts == 0 {
        return Ok(());
    }
    match failure {
        None => {
            tx.execute(
                "UPDATE notice_channels SET sent_at = $2 WHERE id = $1",
                params![key.channel.as_str(), now],
            )
            .await?;
            // That one person was told does not hide that another was not.
            tx.execute(
                "UPDATE notice_channels SET failing_since = NULL, failure = NULL WHERE id = $1 AND NOT EXISTS \
                 (SELECT 1 FROM notice_deliveries WHERE organisation = $2 AND notice = $3 AND channel = $1 \
                 AND failure IS NOT NULL)",
                params![
                    key.channel.as_str(),
                    key.organisation.as_str(),
                    key.notice.as_str()
                ],
            )
            .await?
        }
        Some(why) => {
            tx.execute(
                "UPDATE notice_channels SET failing_since = COALESCE(failing_since, $2), failure = $3 WHERE id = $1",
                params![key.channel.as_str(), now, why.as_str()],
            )
            .await?
        }
    };
    Ok(())
}

/// How long after the so-manyth try the next one comes: twice as long each time, and a bit apart from others.
fn pause(attempts: i64, jitter: u8) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(0)
        .min(20);
    let whole = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
    whole.mul_f64(0.75 + f64::from(jitter) / 1_024.0)
}

async fn open(tx: &mut Tx<'_>, escrow: &Escrow, key: &Key) -> Result<Delivery> {
    let notice = tx
        .fetch_one(
            "SELECT kind, text, created_at FROM notices WHERE organisation = $1 AND id = $2",
            params![key.organisation.as_str(), key.notice.as_str()],
        )
        .await?;
    let kind: String = notice.get("kind")?;
    let text: String = notice.get("text")?;
    let row = tx
        .fetch_one(
            "SELECT organisation, id, kind, name, address, target, mail, secret, previous, created_at, sent_at, \
             failing_since, failure FROM notice_channels WHERE id = $1",
            params![key.channel.as_str()],
        )
        .await?;
    let place: String = row.get("organisation")?;
    let opened = |column, kind| -> Result<Option<Zeroizing<String>>> {
        let Some(cell) = row.get::<Option<Vec<u8>>>(column)? else {
            return Ok(None);
        };
        let plain = escrow.open_cell(kind, &place, &key.channel, &cell)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::Corrupt("notice_channels"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    };
    let secrets = [
        opened("secret", CHANNEL_SECRET)?,
        opened("previous", PREVIOUS_CHANNEL_SECRET)?,
    ];
    Ok(Delivery {
        notice: key.notice.clone(),
        kind: NoticeKind::from_name(&kind).ok_or(Error::Corrupt("notices.kind"))?,
        text: serde_json::from_str(&text).map_err(|_| Error::Corrupt("notices.text"))?,
        created_at: notice.get("created_at")?,
        target: opened("target", CHANNEL_TARGET)?,
        secrets: secrets.into_iter().flatten().collect(),
        channel: ChannelView::from_row(&row)?,
        recipient: key.recipient.clone(),
        key: key.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_are_a_bit_apart() {
        assert!(pause(1, 0) >= FIRST_PAUSE.mul_f64(0.7) && pause(1, 255) <= FIRST_PAUSE);
        assert!(pause(1, 0) < pause(1, 255));
        assert!(pause(2, 0) > pause(1, 255));
        assert!(
            pause(i64::MAX, 255) <= LONGEST_PAUSE && pause(40, 0) >= LONGEST_PAUSE.mul_f64(0.7)
        );
    }
}
