//! A small world of devices, an MDM, Apple, one or more processes and a clock moved by hand. Random lists of what may happen to
//! them are carried out, then everything is left in peace, and what the rules promise is compared with what the world knows.
//!
//! `LOCKWARDEN_LISTS` is how many lists a test carries out, `LOCKWARDEN_SEED` the first of their seeds. A list that once failed
//! stays as a test of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use activation_lock::bypass_code::{BypassCode, EscrowKeyHash};
use activation_lock::device::SerialNumber;
use activation_lock::lock::{LockOutcome, ResponseStatus};
use activation_lock::operation::StateName;
use activation_lock::time::DAY;
use activation_lock::unlock::Outcome;
use escrow::Escrow;
use escrow::commands::{Command, CommandType};
use escrow::keys::Step;
use escrow::locks::{self, NewLock};
use escrow::operations::{self, Claim, Enqueued, Kind, Lease, NewUnlock, WorkSettings};
use escrow::pace::Rate;
use escrow::permit::{Admin, Lock, Permit, Unlock};
use escrow::push_certificates::NewPushCertificate;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sim::Postgres;
use sim::postgres::Keeping;
use tempfile::TempDir;

use crate::record::Mdm;
use crate::support::{Vault, open_in};

/// How a call to Apple goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As it should.
    Well,
    /// Apple does it, and its answer is lost.
    AnswerLost,
    /// It does not get there, and nobody knows.
    CallLost,
    /// Apple says that it cannot now.
    Busy,
    /// Apple does it, and the process stands still before it hears so.
    FrozenAfter,
    /// The process stands still before Apple has it.
    FrozenBefore,
}

/// What may happen. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    /// A device is enrolled, as new or after an erase: it has another code.
    Enrol(usize),
    /// It answers what is asked of it.
    Answer(usize),
    /// It does, and each answer comes twice.
    AnswerTwice(usize),
    /// It does, and no answer comes.
    AnswerIsLost(usize),
    /// Its person turns on the lock.
    UserLock(usize),
    /// Somebody wishes to unlock it.
    AskUnlock(usize),
    /// Somebody wishes to lock it.
    AskLock(usize),
    /// A process takes what is due first, and works on it.
    Work(usize, Way),
    /// A process that stood still goes on, and hears what Apple said.
    Thaw(usize),
    /// A process is killed, and another takes its place.
    Kill(usize),
    /// Time passes: minutes.
    Pass(u64),
    /// The clock is set back: minutes.
    SetBack(u64),
    /// Keys are exchanged.
    Rotate,
    /// The database's server is killed, and comes back.
    KillDatabase,
}

/// The lock of a device at Apple.
#[derive(Clone, PartialEq)]
enum AppleLock {
    User(String),
    Organisation(EscrowKeyHash),
}

/// What is sent to Apple.
enum Sent {
    Unlock(operations::Ticket, String),
    Lock(locks::Ticket, EscrowKeyHash),
}

/// A call that a process makes which stands still.
struct Frozen {
    by: usize,
    generation: u64,
    serial: String,
    operation: String,
    sent: Sent,
    /// Apple's answer, if it was given before.
    answer: Option<bool>,
}

/// What the world knows, and the vault must agree with.
struct World {
    vault: Vault,
    database: Option<(Arc<Postgres>, String)>,
    /// The processes; the first is the vault's own.
    others: Vec<(Escrow, TempDir)>,
    /// Counts the kills of each.
    generations: Vec<u64>,
    rng: ChaCha20Rng,
    /// The present code of each device.
    codes: Vec<Option<String>>,
    /// Codes of which the vault has said that it has them.
    acknowledged: BTreeSet<(String, String)>,
    apple: BTreeMap<String, AppleLock>,
    frozen: Vec<Frozen>,
    /// The unlocks that Apple was heard to have done.
    heard: BTreeSet<String>,
    /// How many calls of each operation have had no answer.
    in_doubt: BTreeMap<String, u32>,
    unlocks: Vec<(String, String)>,
    seeds: u64,
}

const DEVICES: usize = 3;

fn settings(owner: usize, generation: u64) -> WorkSettings {
    WorkSettings {
        owner: format!("{owner}-{generation}"),
        call_timeout: Duration::from_secs(60),
        in_flight: 8,
        pace: Rate::per_second(0.0),
        apple_host: "deviceservices-external.apple.com".to_owned(),
        enrolment_host: "mdmenrollment.apple.com".to_owned(),
    }
}

fn name(device: usize) -> String {
    format!("SIMULATED{:03}", device % DEVICES)
}

fn serial(text: &str) -> SerialNumber {
    text.parse().unwrap()
}

impl World {
    async fn new(seed: u64, processes: usize, server: Option<Arc<Postgres>>) -> Self {
        let database = server.map(|server| {
            let address = server.create(&format!("list-{seed}")).unwrap();
            (server, address)
        });
        let vault = match &database {
            Some((_, address)) => Vault::on(address).await,
            None => Vault::in_a_file().await,
        };
        let mut world = Self {
            vault,
            database,
            others: Vec::new(),
            generations: vec![0; processes],
            rng: ChaCha20Rng::seed_from_u64(seed),
            codes: vec![None; DEVICES],
            acknowledged: BTreeSet::new(),
            apple: BTreeMap::new(),
            frozen: Vec::new(),
            heard: BTreeSet::new(),
            in_doubt: BTreeMap::new(),
            unlocks: Vec::new(),
            seeds: 100,
        };
        for _ in 1..processes {
            let folder = TempDir::new().unwrap();
            let escrow = world.open(&folder).await;
            world.others.push((escrow, folder));
        }
        let permit = world.vault.permit("push certificate").await;
        let new = NewPushCertificate {
            topic: "com.apple.mgmt.External.test".to_owned(),
            fingerprint: "aa".to_owned(),
            subject: "a test".to_owned(),
            not_before: world.vault.now().minus(DAY),
            not_after: world.vault.now().plus(300 * DAY),
            pem: "a certificate".to_owned().into(),
        };
        let certificates = world.vault.escrow.push_certificates();
        certificates.add(&permit, new).await.unwrap();
        crate::locks::put_token(&world.vault, "main").await;
        world
    }

    async fn open(&mut self, folder: &TempDir) -> Escrow {
        self.seeds += 1;
        let address = &self.database.as_ref().unwrap().1;
        let database = escrow::Database::Postgres(address.parse().unwrap());
        open_in(folder.path(), database, &self.vault.clock, self.seeds)
            .await
            .unwrap()
    }

    fn process(&self, number: usize) -> usize {
        number % self.generations.len()
    }

    fn escrow(&self, number: usize) -> &Escrow {
        match self.process(number) {
            0 => &self.vault.escrow,
            other => &self.others[other - 1].0,
        }
    }

    fn new_code(&mut self) -> String {
        let mut raw = [0; 16];
        self.rng.fill_bytes(&mut raw);
        BypassCode::from_raw(raw).to_text().to_string()
    }

    async fn happens(&mut self, what: Happening) {
        match what {
            Happening::Enrol(device) => {
                self.codes[device % DEVICES] = Some(self.new_code());
                Mdm::new(&self.vault, &name(device), &name(device))
                    .await
                    .enrol()
                    .await;
            }
            Happening::Answer(device) => self.answer(device, 1).await,
            Happening::AnswerTwice(device) => self.answer(device, 2).await,
            Happening::AnswerIsLost(device) => self.answer(device, 0).await,
            Happening::UserLock(device) => {
                // The device's lock is open to whoever holds the code of the device's present life.
                if let Some(code) = self.codes[device % DEVICES].clone() {
                    self.apple
                        .entry(name(device))
                        .or_insert(AppleLock::User(code));
                }
            }
            Happening::AskUnlock(device) => self.ask_unlock(device).await,
            Happening::AskLock(device) => {
                let permit: Permit<Lock> = self.vault.permit(&name(device)).await;
                let new = NewLock {
                    serial: serial(&name(device)),
                    reason: "lost".to_owned(),
                    requester: "desk@example.org".to_owned(),
                    message: None,
                    server_token: None,
                    override_reason: Some("no list was read".to_owned()),
                    urgent: false,
                    idempotency: None,
                };
                self.vault
                    .escrow
                    .locks()
                    .enqueue(&permit, new)
                    .await
                    .unwrap();
            }
            Happening::Work(process, way) => self.work(self.process(process), way).await,
            Happening::Thaw(number) => self.thaw(number).await,
            Happening::Kill(process) => self.kill(self.process(process)).await,
            Happening::Pass(minutes) => {
                self.vault.clock.advance(Duration::from_secs(60 * minutes));
                self.vault.escrow.commands().plan_due(100).await.unwrap();
            }
            Happening::SetBack(minutes) => {
                let now = self.vault.now().minus(Duration::from_secs(60 * minutes));
                self.vault.clock.set(now);
            }
            Happening::Rotate => {
                let permit: Permit<Admin> = self.vault.permit("keys").await;
                self.vault.escrow.keys().rotate(&permit).await.unwrap();
                while self.vault.escrow.keys().step().await.unwrap() == Step::More {}
            }
            Happening::KillDatabase => {
                if let Some((server, _)) = &self.database {
                    server.kill().unwrap();
                    server.begin().unwrap();
                }
            }
        }
    }

    async fn ask_unlock(&mut self, device: usize) {
        let permit: Permit<Unlock> = self.vault.permit(&name(device)).await;
        let new = NewUnlock {
            serial: serial(&name(device)),
            reason: "returned".to_owned(),
            requester: "desk@example.org".to_owned(),
            insists: false,
            urgent: false,
            idempotency: None,
        };
        let asked = self.vault.escrow.operations().enqueue(&permit, new).await;
        if let Enqueued::New(view) = asked.unwrap() {
            self.unlocks.push((view.id, name(device)));
        }
    }

    /// The MDM takes what is due, and the device answers it so many times.
    async fn answer(&mut self, device: usize, times: u32) {
        let mdm = Mdm::new(&self.vault, &name(device), &name(device)).await;
        let commands = self.vault.escrow.commands();
        let taken = commands
            .take_due(100, Duration::from_secs(60), &[])
            .await
            .unwrap();
        for command in &taken {
            commands.queued(command).await.unwrap();
        }
        let asked = taken
            .iter()
            .filter(|command| command.enrollment == name(device));
        let Some(code) = self.codes[device % DEVICES].clone() else {
            return;
        };
        for command in asked {
            for _ in 0..times {
                answer(&mdm, command, &code).await;
                if command.what == CommandType::BypassCode {
                    self.acknowledged.insert((name(device), code.clone()));
                }
            }
        }
    }

    /// A process takes what is due first and works on it until that waits or ends; the first call goes some way, the others well.
    async fn work(&mut self, process: usize, mut way: Way) {
        let settings = settings(process, self.generations[process]);
        let claimed = self
            .escrow(process)
            .operations()
            .claim(&settings)
            .await
            .unwrap();
        let Claim::Lease(mut lease) = claimed else {
            return;
        };
        let operation = lease.operation().to_owned();
        let device = lease.serial().as_str().to_owned();
        while let Some(sent) = self.begin(process, &mut lease, &settings).await {
            let frozen = match way {
                Way::FrozenAfter => Some(Some(self.apple_takes(&device, &sent))),
                Way::FrozenBefore => Some(None),
                _ => None,
            };
            if let Some(answer) = frozen {
                *self.in_doubt.entry(operation.clone()).or_default() += 1;
                self.frozen.push(Frozen {
                    by: process,
                    generation: self.generations[process],
                    serial: device,
                    operation,
                    sent,
                    answer,
                });
                return;
            }
            let (done, was_heard) = match way {
                Way::Well => (self.apple_takes(&device, &sent), true),
                Way::AnswerLost => (self.apple_takes(&device, &sent), false),
                _ => (false, false),
            };
            if !was_heard && way != Way::Busy {
                *self.in_doubt.entry(operation.clone()).or_default() += 1;
            }
            let is_more = self
                .finish(process, &operation, &sent, was_heard.then_some(done), way)
                .await;
            way = Way::Well;
            if !is_more {
                return;
            }
        }
    }

    /// The call that is next, if one is.
    async fn begin(
        &self,
        process: usize,
        lease: &mut Lease,
        settings: &WorkSettings,
    ) -> Option<Sent> {
        match lease.kind() {
            Kind::Unlock => {
                let operations = self.escrow(process).operations();
                match operations.advance(lease, settings).await.unwrap() {
                    operations::Advance::Call(begun) => {
                        let code = begun.code.expose().to_owned();
                        Some(Sent::Unlock(begun.ticket, code))
                    }
                    _ => None,
                }
            }
            Kind::Lock => {
                let locks = self.escrow(process).locks();
                match locks.advance(lease, settings).await.unwrap() {
                    locks::Advance::Call(begun) => Some(Sent::Lock(begun.ticket, begun.escrow_key)),
                    _ => None,
                }
            }
        }
    }

    /// Apple does what it is asked for, or not. True when it did.
    fn apple_takes(&mut self, device: &str, sent: &Sent) -> bool {
        match (sent, self.apple.get(device).cloned()) {
            (Sent::Unlock(_, code), Some(lock)) => {
                let opens = match lock {
                    AppleLock::User(of) => of == *code,
                    AppleLock::Organisation(hash) => {
                        BypassCode::parse(code).is_ok_and(|code| EscrowKeyHash::of(&code) == hash)
                    }
                };
                if opens {
                    self.apple.remove(device);
                }
                opens
            }
            (Sent::Unlock(..), None) => false,
            (Sent::Lock(..), Some(_)) => false,
            (Sent::Lock(_, hash), None) => {
                let lock = AppleLock::Organisation(hash.clone());
                self.apple.insert(device.to_owned(), lock);
                true
            }
        }
    }

    /// Tells what was heard of Apple; nothing when there was no answer. True when there is more to do.
    async fn finish(
        &mut self,
        process: usize,
        operation: &str,
        sent: &Sent,
        heard: Option<bool>,
        way: Way,
    ) -> bool {
        match sent {
            Sent::Unlock(ticket, _) => {
                let outcome = match heard {
                    Some(true) => Outcome::Unlocked,
                    Some(false) => Outcome::Refused,
                    None if way == Way::Busy => Outcome::Unavailable,
                    None => Outcome::Unknown,
                };
                if outcome == Outcome::Unlocked {
                    self.heard.insert(operation.to_owned());
                }
                let operations = self.escrow(process).operations();
                let answer = operations::Answer::default();
                let finished = operations.finish(ticket, outcome, answer).await.unwrap();
                finished == operations::Finished::More
            }
            Sent::Lock(ticket, _) => {
                let (outcome, status) = match heard {
                    Some(true) => (LockOutcome::Locked, Some(ResponseStatus::Success)),
                    Some(false) => (
                        LockOutcome::AlreadyLocked,
                        Some(ResponseStatus::DeviceAlreadyLocked),
                    ),
                    None => (LockOutcome::Unknown, None),
                };
                let answer = locks::Answer {
                    response_status: status,
                    ..locks::Answer::default()
                };
                let locks = self.escrow(process).locks();
                let finished = locks.finish(ticket, outcome, answer).await.unwrap();
                finished == locks::Finished::More
            }
        }
    }

    /// A call that stood still goes on: to Apple, if it was not there yet.
    async fn thaw(&mut self, number: usize) {
        if self.frozen.is_empty() {
            return;
        }
        let frozen = self.frozen.remove(number % self.frozen.len());
        if self.generations[frozen.by] != frozen.generation {
            // It was killed meanwhile.
            return;
        }
        let done = match frozen.answer {
            Some(done) => done,
            None => self.apple_takes(&frozen.serial, &frozen.sent),
        };
        // Late, but it is an answer.
        *self.in_doubt.entry(frozen.operation.clone()).or_default() -= 1;
        self.finish(
            frozen.by,
            &frozen.operation,
            &frozen.sent,
            Some(done),
            Way::Well,
        )
        .await;
    }

    async fn kill(&mut self, process: usize) {
        self.generations[process] += 1;
        if process == 0 && self.database.is_none() {
            self.seeds += 1;
            self.vault.escrow.close().await;
            let (folder, clock) = (self.vault.path(), &self.vault.clock);
            let again = open_in(folder, escrow::Database::Embedded, clock, self.seeds).await;
            self.vault.escrow = again.unwrap();
            return;
        }
        // What it had in memory is gone; closing it gives nothing back that a kill would not.
        if process == 0 {
            let folder = TempDir::new().unwrap();
            let escrow = self.open(&folder).await;
            let before = std::mem::replace(&mut self.vault.escrow, escrow);
            before.close().await;
            // Its folder must outlive it.
            let _ = folder.keep();
        } else {
            let (before, folder) = self.others.remove(process - 1);
            before.close().await;
            let escrow = self.open(&folder).await;
            self.others.insert(process - 1, (escrow, folder));
        }
    }

    /// Everybody does what they should until nothing is left to do.
    async fn is_left_in_peace(&mut self) {
        while !self.frozen.is_empty() {
            self.thaw(0).await;
        }
        for _ in 0..40 {
            self.happens(Happening::Pass(31)).await;
            for device in 0..DEVICES {
                self.answer(device, 1).await;
            }
            for process in 0..self.generations.len() {
                for _ in 0..4 {
                    self.work(process, Way::Well).await;
                }
            }
        }
    }

    /// What the rules promise.
    async fn is_as_promised(&mut self) {
        // R1, R2: every code that was acknowledged is there.
        for (device, code) in &self.acknowledged {
            let held = self.vault.reveal(device).await;
            let is_held = held.iter().any(|one| one.text.expose() == code);
            assert!(
                is_held,
                "R1, R2: a code of {device} that was acknowledged is gone"
            );
        }
        // R4: the code of every lock of ours is there.
        for (device, lock) in &self.apple {
            let AppleLock::Organisation(hash) = lock else {
                continue;
            };
            let held = self.vault.reveal(device).await;
            let opens = held.iter().any(|one| {
                let code = BypassCode::parse(one.text.expose());
                code.is_ok_and(|code| EscrowKeyHash::of(&code) == *hash)
            });
            assert!(opens, "R4: {device} is locked by us, and its code is gone");
        }
        for (id, device) in &self.unlocks {
            let permit = self.vault.permit(id).await;
            let view = self.vault.escrow.operations().get(&permit, id).await;
            let view = view
                .unwrap()
                .expect("an unlock that was asked for is there");
            let was_heard = self.heard.contains(id);
            match view.state {
                StateName::Unlocked => {
                    assert!(was_heard, "R15: {id} of {device} is called unlocked")
                }
                StateName::Rejected => assert!(
                    !was_heard && self.in_doubt.get(id).is_none_or(|calls| *calls == 0),
                    "R14, R15: {id} of {device} is called rejected, and a call had no answer"
                ),
                _ => assert!(
                    !was_heard,
                    "R15: {id} of {device} was unlocked and is {}",
                    view.state
                ),
            }
            assert!(
                view.ended_at.is_some() || view.state == StateName::NeedsReview,
                "R15: {id} of {device} is still {}",
                view.state
            );
        }
        assert!(
            self.vault.record_is_whole().await,
            "the audit record is not whole"
        );
        // R12: whatever is locked can be unlocked, whoever locked it, once its code was held.
        for device in 0..DEVICES {
            let openable = match self.apple.get(&name(device)) {
                Some(AppleLock::Organisation(_)) => true,
                Some(AppleLock::User(code)) => {
                    self.acknowledged.contains(&(name(device), code.clone()))
                }
                None => false,
            };
            for _ in 0..4 {
                if openable && self.apple.contains_key(&name(device)) {
                    self.continue_reviews(device).await;
                    self.vault.clock.advance(DAY + DAY);
                    self.ask_unlock(device).await;
                    self.is_left_in_peace().await;
                }
            }
            assert!(
                !(openable && self.apple.contains_key(&name(device))),
                "R12: {} is locked, its code is held, and it does not open",
                name(device)
            );
        }
    }

    /// A person looks at what needs review, and has it cancelled to ask again.
    async fn continue_reviews(&mut self, device: usize) {
        let mine = self.unlocks.iter().filter(|(_, of)| *of == name(device));
        for (id, _) in mine {
            let permit: Permit<Unlock> = self.vault.permit(&name(device)).await;
            let _ = self.vault.escrow.operations().cancel(&permit, id).await;
        }
    }
}

async fn answer(mdm: &Mdm<'_>, command: &Command, code: &str) {
    match command.what {
        CommandType::DeviceInformation => mdm.answer_information(command, mdm.information()).await,
        _ => mdm.answer_code(command, code).await,
    }
}

/// A list that comes from a seed.
fn list(seed: u64) -> Vec<Happening> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut number = |below: usize| rng.next_u32() as usize % below;
    let length = 10 + number(40);
    let mut list = vec![Happening::Enrol(0), Happening::Answer(0)];
    for _ in 0..length {
        let device = number(DEVICES);
        let process = number(3);
        let way = [
            Way::Well,
            Way::Well,
            Way::AnswerLost,
            Way::CallLost,
            Way::Busy,
            Way::FrozenAfter,
            Way::FrozenBefore,
        ][number(7)];
        list.push(match number(20) {
            0..=1 => Happening::Enrol(device),
            2..=4 => Happening::Answer(device),
            5 => Happening::AnswerTwice(device),
            6 => Happening::AnswerIsLost(device),
            7..=8 => Happening::UserLock(device),
            9..=10 => Happening::AskUnlock(device),
            11 => Happening::AskLock(device),
            12..=14 => Happening::Work(process, way),
            15 => Happening::Thaw(number(4)),
            16 => Happening::Kill(process),
            17 => Happening::Pass(1 + number(90) as u64),
            18 => [Happening::SetBack(5), Happening::Pass(60 * 26)][number(2)],
            _ => [Happening::Rotate, Happening::KillDatabase][number(2)],
        });
    }
    list
}

async fn is_carried_out(
    seed: u64,
    processes: usize,
    server: Option<Arc<Postgres>>,
    list: &[Happening],
) {
    let mut world = World::new(seed, processes, server).await;
    for what in list {
        world.happens(*what).await;
    }
    world.is_left_in_peace().await;
    world.is_as_promised().await;
    for (escrow, _) in &world.others {
        escrow.close().await;
    }
    world.vault.escrow.close().await;
}

fn given(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Carries out lists; says the seed of one that fails.
async fn lists(first: u64, count: u64, processes: usize) {
    let (first, count) = (
        given("LOCKWARDEN_SEED", first),
        given("LOCKWARDEN_LISTS", count),
    );
    let server = (processes > 1).then(|| Arc::new(Postgres::start(Keeping::Unsynced).unwrap()));
    for seed in first..first + count {
        let list = list(seed);
        let told = Told(seed, list.clone());
        is_carried_out(seed, processes, server.clone(), &list).await;
        std::mem::forget(told);
    }
}

/// Says what was carried out when it is not done with.
struct Told(u64, Vec<Happening>);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the list of seed {} failed:\n{:?}", self.0, self.1);
    }
}

#[tokio::test]
async fn whatever_happens_to_one_process_the_rules_hold() {
    lists(1_000, 60, 1).await;
}

#[tokio::test]
async fn whatever_else_happens_to_one_process_the_rules_hold() {
    lists(100_000, 60, 1).await;
}

#[tokio::test]
async fn and_whatever_else_happens_to_one_process_the_rules_hold() {
    lists(200_000, 60, 1).await;
}

#[tokio::test]
async fn whatever_happens_to_three_processes_the_rules_hold() {
    lists(500_000, 20, 3).await;
}
