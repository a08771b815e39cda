//! A whole world for the sandbox: Apple with all its services, an MDM, and devices that live.
//!
//! Every device that is supervised belongs to the organisation: it is assigned to the one server of the enrolment service,
//! and the Business and School Manager API knows it.
//!
//! Half of the devices enrolled before anybody listened to the MDM's webhooks, so that only their polls are seen; the
//! others enrol while somebody listens. A few have a story, see [`Story`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use crate::{
    AccountKind, ApiAccount, Apple, AppleOptions, BusinessManager, BusinessManagerOptions, Code,
    Dep, DepOptions, DepToken, Device, DeviceSpec, Kind, Now, PushCertificate, SIM_TOPIC,
    SlotOrder, StartError, Udid,
    nanomdm::{AppleEndpoint, Flavour, NanoMdm, NanoMdmOptions, Webhook},
};

/// What happens to a device by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Story {
    /// Nothing.
    Ordinary,
    /// A user lock is on that the device's code opens.
    UserLocked,
    /// Once it has told its code, it is locked, erased and enrolled again: it has a new code, and the lock opens with
    /// the old one.
    Erased,
    /// Once it has told its code, it is locked with that code, makes a new one and tells it unasked: the newest is wrong,
    /// the second right.
    WrongFirst,
    /// A user lock is on whose code nobody has.
    NobodyHasTheCode,
    /// Nobody has locked it. Once the organisation has, and it has told its code, whoever found it erases it: it gets no further
    /// than the lock, and once that is off it enrols again, with a new code.
    Lost,
}

/// What world is wanted.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Of everything random: the same seed and number give the same devices and codes.
    pub seed: u64,
    /// How many devices.
    pub devices: usize,
    /// The MDM's password.
    pub api_key: String,
    /// Where the webhooks go; it may be set later.
    pub webhook: Option<Webhook>,
    /// Whose paths the MDM has.
    pub flavour: Flavour,
    /// The time of all fakes.
    pub now: Now,
    /// How often each device polls while the world is lively.
    pub poll_every: Duration,
    /// Whether the last few devices have the stories of [`Story`].
    pub stories: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            devices: 25,
            api_key: "sim-api-key".to_owned(),
            webhook: None,
            flavour: Flavour::default(),
            now: Now::wall(),
            poll_every: Duration::from_secs(3),
            stories: true,
        }
    }
}

/// A running world; it stops when dropped.
pub struct World {
    apple: Apple,
    dep: Dep,
    dep_token: DepToken,
    business_manager: BusinessManager,
    api_account: ApiAccount,
    mdm: NanoMdm,
    push_certificate: PushCertificate,
    cast: Arc<Cast>,
    poll_every: Duration,
    life: Mutex<Option<JoinHandle<()>>>,
}

struct Cast {
    mdm: NanoMdm,
    apple: Apple,
    members: Vec<Member>,
    by_serial: HashMap<String, usize>,
}

struct Member {
    device: Device,
    story: Story,
    /// How far the story is.
    chapter: Mutex<u8>,
}

/// In this order the devices of a world are made, again and again.
const KINDS: [Kind; 12] = [
    Kind::Iphone,
    Kind::IpadWifi,
    Kind::IphoneDualSim,
    Kind::Mac,
    Kind::IpadCellular,
    Kind::Iphone,
    Kind::IpadWifi,
    Kind::Mac,
    Kind::IphoneDualSim,
    Kind::SharedIpad,
    Kind::UnsupervisedIphone,
    Kind::AppleTv,
];

/// The stories, and who plays them.
const STORIES: [(Story, Kind); 5] = [
    (Story::UserLocked, Kind::IpadWifi),
    (Story::Erased, Kind::IphoneDualSim),
    (Story::WrongFirst, Kind::Iphone),
    (Story::NobodyHasTheCode, Kind::IpadCellular),
    (Story::Lost, Kind::IpadWifi),
];

impl World {
    /// Starts all of it on loopback addresses. Devices do nothing before [`World::step`] or [`World::lively`].
    ///
    /// # Errors
    ///
    /// When a fake cannot start.
    pub async fn start(options: WorldOptions) -> Result<Self, StartError> {
        let apple = Apple::start(AppleOptions {
            now: options.now.clone(),
            ..AppleOptions::default()
        })
        .await?;
        let push_certificate = apple.push_certificate(SIM_TOPIC);
        let dep_options = DepOptions {
            now: options.now.clone(),
            ..DepOptions::default()
        };
        let dep = Dep::start(&apple, dep_options).await?;
        let api_options = BusinessManagerOptions {
            now: options.now.clone(),
            ..BusinessManagerOptions::default()
        };
        let business_manager = BusinessManager::start(&apple, api_options).await?;
        let mdm = NanoMdm::start(NanoMdmOptions {
            now: options.now,
            flavour: options.flavour,
            api_key: options.api_key,
            apple: Some(AppleEndpoint {
                url: apple.url(),
                ca_pem: apple.ca_pem(),
            }),
            ..NanoMdmOptions::default()
        })
        .await?;
        mdm.store_push_certificate(&push_certificate);
        let cast = Arc::new(Cast::assemble(
            &apple,
            &mdm,
            options.seed,
            options.devices,
            options.stories,
        ));
        let dep_token = dep.issue_token("Sim Server");
        for member in cast.of_the_organisation() {
            dep.assign(&dep_token, member.device.dep_device());
            business_manager.add_device(member.device.org_device());
        }
        cast.enrol_the_old_ones();
        mdm.set_webhook(options.webhook);
        let poll_every = options.poll_every;
        Ok(Self {
            apple,
            dep,
            dep_token,
            api_account: business_manager.issue_account(AccountKind::School),
            business_manager,
            mdm,
            push_certificate,
            cast,
            poll_every,
            life: Mutex::new(None),
        })
    }

    /// The fake Apple.
    pub fn apple(&self) -> &Apple {
        &self.apple
    }

    /// The fake enrolment service.
    pub fn dep(&self) -> &Dep {
        &self.dep
    }

    /// The token of the server to which the organisation's devices are assigned.
    pub fn dep_token(&self) -> &DepToken {
        &self.dep_token
    }

    /// The fake Business and School Manager API.
    pub fn business_manager(&self) -> &BusinessManager {
        &self.business_manager
    }

    /// An account of it; a school's, as the sandbox is a school.
    pub fn api_account(&self) -> &ApiAccount {
        &self.api_account
    }

    /// The fake MDM.
    pub fn mdm(&self) -> &NanoMdm {
        &self.mdm
    }

    /// The push certificate of all devices' topic.
    pub fn push_certificate(&self) -> &PushCertificate {
        &self.push_certificate
    }

    /// The serial numbers, in the order the devices were made.
    pub fn serials(&self) -> Vec<String> {
        self.cast
            .members
            .iter()
            .map(|member| member.device.serial())
            .collect()
    }

    /// The device with this serial number.
    pub fn device(&self, serial: &str) -> Option<Device> {
        self.cast
            .by_serial
            .get(serial)
            .map(|index| self.cast.members[*index].device.clone())
    }

    /// The story of this device.
    pub fn story(&self, serial: &str) -> Option<Story> {
        self.cast
            .by_serial
            .get(serial)
            .map(|index| self.cast.members[*index].story)
    }

    /// The devices that have a story.
    pub fn stories(&self) -> BTreeMap<Story, Device> {
        let told = self
            .cast
            .members
            .iter()
            .filter(|member| member.story != Story::Ordinary);
        told.map(|member| (member.story, member.device.clone()))
            .collect()
    }

    /// Whether the device's story has come to where it waits for us: it is locked as the story says, or may be.
    pub fn story_is_ready(&self, serial: &str) -> bool {
        self.cast
            .by_serial
            .get(serial)
            .is_some_and(|index| self.cast.members[*index].is_ready())
    }

    /// Says where the webhooks go from now on.
    pub fn set_webhook(&self, webhook: Option<Webhook>) {
        self.mdm.set_webhook(webhook);
    }

    /// One round: every device that is not enrolled enrols, if somebody listens; every other polls, and its story goes on.
    pub fn step(&self) {
        for index in 0..self.cast.members.len() {
            self.cast.turn(index);
        }
    }

    /// From now on devices live by themselves: each takes its turn about as often as the options say, and at once when it
    /// is pushed to.
    pub fn lively(&self) {
        let mut life = self.life.lock().expect("no holder of this lock panics");
        if life.is_none() {
            *life = Some(tokio::spawn(live(self.cast.clone(), self.poll_every)));
        }
    }

    /// Devices stand still again; [`World::step`] still works.
    pub fn still(&self) {
        if let Some(life) = self
            .life
            .lock()
            .expect("no holder of this lock panics")
            .take()
        {
            life.abort();
        }
    }

    /// Ends it all: devices, MDM, Apple.
    pub async fn stop(self) {
        self.still();
        self.mdm.stop().await;
        self.business_manager.stop().await;
        self.dep.stop().await;
        self.apple.stop().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.still();
    }
}

impl Cast {
    fn assemble(apple: &Apple, mdm: &NanoMdm, seed: u64, count: usize, stories: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // With few devices, the stories come first.
        let told = if stories { STORIES.len().min(count) } else { 0 };
        let members: Vec<Member> = (0..count)
            .map(|index| {
                let (story, kind) = match index.checked_sub(count - told) {
                    Some(place) => STORIES[place],
                    None => (Story::Ordinary, KINDS[index % KINDS.len()]),
                };
                let spec = spec(index, kind, &mut rng);
                let device = Device::new(spec, mdm, apple);
                Member {
                    device,
                    story,
                    chapter: Mutex::new(0),
                }
            })
            .collect();
        let by_serial = members
            .iter()
            .enumerate()
            .map(|(index, member)| (member.device.serial(), index))
            .collect();
        let cast = Self {
            mdm: mdm.clone(),
            apple: apple.clone(),
            members,
            by_serial,
        };
        cast.members
            .iter()
            .for_each(|member| cast.begin(member, &mut rng));
        cast
    }

    /// What is so before the story begins.
    fn begin(&self, member: &Member, rng: &mut impl Rng) {
        let done = match member.story {
            Story::UserLocked => member.device.lock_with_own_code(),
            Story::NobodyHasTheCode => {
                let mut raw = [0; 16];
                rng.fill_bytes(&mut raw);
                self.apple
                    .user_lock(&member.device.serial(), &Code::from_raw(raw).text())
            }
            Story::Ordinary | Story::Erased | Story::WrongFirst | Story::Lost => Ok(()),
        };
        done.expect("a device just made is known to Apple and not locked");
    }

    /// Whom Apple knows as the organisation's own.
    fn of_the_organisation(&self) -> impl Iterator<Item = &Member> {
        let supervised = |member: &&Member| member.device.kind().is_supervised();
        self.members.iter().filter(supervised)
    }

    /// Every other device, while nobody listens.
    fn enrol_the_old_ones(&self) {
        self.members
            .iter()
            .step_by(2)
            .for_each(|member| member.device.enrol());
    }

    fn turn(&self, index: usize) {
        let member = &self.members[index];
        if member.device.is_enrolled() {
            member.device.poll();
            member.go_on(&self.apple);
        } else if self.mdm.has_webhook() && !self.is_held_up(member) {
            member.device.enrol();
        }
    }

    /// Whether it was erased, and asks for the code of the lock that is on before anything else.
    fn is_held_up(&self, member: &Member) -> bool {
        let serial = member.device.serial();
        member.story == Story::Lost && self.apple.lock_state(&serial).is_some()
    }
}

impl Member {
    /// Goes on with the story, when its time has come.
    fn go_on(&self, apple: &Apple) {
        let mut chapter = self.chapter.lock().expect("no holder of this lock panics");
        match (*chapter, self.story) {
            (0, _) if !self.device.has_told_code() => {}
            (0, story) => {
                self.once_told(story);
                *chapter = 1;
            }
            (1, Story::Lost) if apple.was_locked_by_organisation(&self.device.serial()) => {
                self.device.erase(Udid::Same);
                *chapter = 2;
            }
            _ => {}
        }
    }

    /// What happens once the code is told.
    fn once_told(&self, story: Story) {
        match story {
            Story::Erased => {
                if self.device.lock_with_own_code().is_ok() {
                    self.device.erase_and_enrol(Udid::Same);
                }
            }
            Story::WrongFirst => {
                if self.device.lock_with_own_code().is_ok() {
                    let newer = self.device.rotate_code();
                    self.device
                        .send_code("51135113-0000-4000-8000-000000000000", &newer);
                }
            }
            Story::Ordinary | Story::UserLocked | Story::NobodyHasTheCode | Story::Lost => {}
        }
    }

    fn is_ready(&self) -> bool {
        let told = *self.chapter.lock().expect("no holder of this lock panics") > 0;
        told && self.device.has_told_code()
    }
}

fn spec(index: usize, kind: Kind, rng: &mut impl Rng) -> DeviceSpec {
    const LETTERS: &[u8; 24] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
    let letters: String = (0..4)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect();
    let mut spec = DeviceSpec::new(format!("SIM{letters}{index:04}"), kind, rng.next_u64());
    // Every third still has the version before.
    if index % 3 == 2 {
        spec = spec.with_os_major(18);
    }
    if index.is_multiple_of(4) {
        spec = spec.with_slot_order(SlotOrder::Reversed);
    }
    spec
}

async fn live(cast: Arc<Cast>, poll_every: Duration) {
    let count = cast.members.len().max(1);
    let beat = poll_every / u32::try_from(count).unwrap_or(u32::MAX);
    let mut index = 0;
    loop {
        tokio::select! {
            () = crate::clock::pause(beat) => {
                if !cast.members.is_empty() {
                    cast.turn(index % count);
                }
                index = (index + 1) % count;
            }
            () = cast.mdm.pushed() => {
                let pushed = cast.mdm.take_pushed();
                for (index, member) in cast.members.iter().enumerate() {
                    if pushed.contains(&member.device.enrollment_id()) {
                        cast.turn(index);
                    }
                }
            }
        }
    }
}
