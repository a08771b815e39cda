//! A list of what happened that tests can read, and wait on without sleeping.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// How long [`Journal::wait_for`] waits before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What happened, in order. A clone is the same journal. It keeps the newest entries only, as many as it was made for.
pub struct Journal<T> {
    entries: Arc<Mutex<Entries<T>>>,
    changed: watch::Sender<u64>,
}

struct Entries<T> {
    kept: VecDeque<T>,
    /// The number of the first entry kept.
    first: u64,
    most: usize,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            changed: self.changed.clone(),
        }
    }
}

impl<T: Clone> Journal<T> {
    /// An empty journal that keeps the `most` newest entries.
    pub(crate) fn new(most: usize) -> Self {
        let entries = Entries {
            kept: VecDeque::new(),
            first: 0,
            most,
        };
        Self {
            entries: Arc::new(Mutex::new(entries)),
            changed: watch::Sender::new(0),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        // A condition that panics has failed its test, and has left the entries whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the entry that `make` gives for its number.
    pub(crate) fn add(&self, make: impl FnOnce(u64) -> T) -> u64 {
        let number = {
            let mut entries = self.entries();
            let number = entries.first + entries.kept.len() as u64;
            entries.kept.push_back(make(number));
            if entries.kept.len() > entries.most {
                entries.kept.pop_front();
                entries.first += 1;
            }
            number
        };
        self.changed.send_modify(|changes| *changes += 1);
        number
    }

    /// Changes the entry of that number, when it is still kept.
    pub(crate) fn amend(&self, number: u64, change: impl FnOnce(&mut T)) {
        {
            let mut entries = self.entries();
            let index = number
                .checked_sub(entries.first)
                .map(|index| index as usize);
            if let Some(entry) = index.and_then(|index| entries.kept.get_mut(index)) {
                change(entry);
            }
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// The entry of that number, when it is still kept.
    pub fn get(&self, number: u64) -> Option<T> {
        let entries = self.entries();
        let index = usize::try_from(number.checked_sub(entries.first)?).ok()?;
        entries.kept.get(index).cloned()
    }

    /// All entries kept, oldest first.
    pub fn all(&self) -> Vec<T> {
        self.entries().kept.iter().cloned().collect()
    }

    /// How many entries there ever were.
    pub fn count(&self) -> u64 {
        let entries = self.entries();
        entries.first + entries.kept.len() as u64
    }

    /// Waits until `enough` holds of the entries, and gives them. The condition must not itself read this journal: it
    /// is locked meanwhile.
    ///
    /// # Panics
    ///
    /// After [`PATIENCE`], naming `what` was awaited: a test that waits in vain has failed.
    pub async fn wait_for(&self, what: &str, enough: impl Fn(&[T]) -> bool) -> Vec<T> {
        let mut changes = self.changed.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let fulfilled = enough(self.entries().kept.make_contiguous());
                if fulfilled {
                    return self.all();
                }
                changes
                    .changed()
                    .await
                    .expect("the journal holds the sender");
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(entries) => entries,
            Err(_) => panic!(
                "waited {PATIENCE:?} in vain for {what}; {} entries so far",
                self.count()
            ),
        }
    }
}
