//! Word that there may be something to do: to whoever waits for it in this process, and in every other that shares the database.

use tokio::sync::{Notify, watch};

use crate::Escrow;

/// What there is word of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A command is to be queued at its MDM.
    Commands,
    /// Questions may have become due.
    Asks,
    /// An unlock or a lock is to be worked on.
    Operations,
    /// Apple's status of a lock is to be read.
    Statuses,
    /// A list of Apple's is to be read.
    Listings,
    /// Keys are to be exchanged.
    Rotations,
    /// Somebody is to be told something.
    Notices,
    /// A batch may have something to do.
    Batches,
    /// A connection or its secrets changed.
    Connections,
}

impl News {
    pub(crate) const ALL: [Self; 9] = [
        Self::Commands,
        Self::Asks,
        Self::Operations,
        Self::Statuses,
        Self::Listings,
        Self::Rotations,
        Self::Notices,
        Self::Batches,
        Self::Connections,
    ];

    /// The word by which other processes are told.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Asks => "asks",
            Self::Operations => "operations",
            Self::Statuses => "statuses",
            Self::Listings => "listings",
            Self::Rotations => "rotations",
            Self::Notices => "notices",
            Self::Batches => "batches",
            Self::Connections => "connections",
        }
    }
}

/// Those who wait in this process.
pub(crate) struct Waits {
    commands: Notify,
    asks: Notify,
    operations: Notify,
    statuses: Notify,
    listings: Notify,
    rotations: Notify,
    notices: Notify,
    batches: Notify,
    /// Counts the changes of connections.
    connections: watch::Sender<u64>,
}

impl Waits {
    pub(crate) fn new() -> Self {
        Self {
            commands: Notify::new(),
            asks: Notify::new(),
            operations: Notify::new(),
            statuses: Notify::new(),
            listings: Notify::new(),
            rotations: Notify::new(),
            notices: Notify::new(),
            batches: Notify::new(),
            connections: watch::Sender::new(0),
        }
    }

    /// Word that came from another process; `None` when some may have been missed.
    pub(crate) fn heard(&self, word: Option<&str>) {
        for news in News::ALL {
            if word.is_none_or(|word| word == news.as_str()) {
                self.tell(news);
            }
        }
    }

    fn tell(&self, news: News) {
        let waits = match news {
            News::Commands => &self.commands,
            News::Asks => &self.asks,
            News::Operations => {
                // Several may wait, and one that comes later is to find it too.
                self.operations.notify_waiters();
                &self.operations
            }
            News::Statuses => &self.statuses,
            News::Listings => &self.listings,
            News::Rotations => &self.rotations,
            News::Notices => &self.notices,
            News::Batches => &self.batches,
            News::Connections => {
                self.connections.send_modify(|changes| *changes += 1);
                return;
            }
        };
        waits.notify_one();
    }

    async fn wait(&self, news: News) {
        let waits = match news {
            News::Commands => &self.commands,
            News::Asks => &self.asks,
            News::Operations => &self.operations,
            News::Statuses => &self.statuses,
            News::Listings => &self.listings,
            News::Rotations => &self.rotations,
            News::Notices => &self.notices,
            News::Batches => &self.batches,
            News::Connections => {
                let mut changes = self.connections.subscribe();
                // The sender is this one.
                let _ = changes.changed().await;
                return;
            }
        };
        waits.notified().await;
    }
}

impl Escrow {
    /// Tells whoever waits, here and elsewhere.
    pub(crate) fn tell(&self, news: News) {
        self.shared.waits.tell(news);
        self.db.tell(news.as_str());
    }

    /// Waits for word. What came since the last wait counts.
    pub(crate) async fn told(&self, news: News) {
        self.shared.waits.wait(news).await;
    }

    /// Waits until commands may have become due.
    pub async fn courier_woken(&self) {
        self.told(News::Commands).await;
    }

    /// Waits until [`commands::Commands::plan_due`](crate::commands::Commands::plan_due) may have something to do before its
    /// time. A wake-up that came since the last wait counts.
    pub async fn asks_woken(&self) {
        self.told(News::Asks).await;
    }

    /// Waits until Apple's status of a lock may have become due.
    pub async fn statuses_woken(&self) {
        self.told(News::Statuses).await;
    }

    /// Waits until a list of Apple's may have become due.
    pub async fn listings_woken(&self) {
        self.told(News::Listings).await;
    }

    /// Changes with every change of a connection or its secrets, so that copies of them are read anew.
    #[must_use]
    pub fn connection_changes(&self) -> watch::Receiver<u64> {
        self.shared.waits.connections.subscribe()
    }
}
