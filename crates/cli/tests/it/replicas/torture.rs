//! Three processes and their database, killed, frozen and started again at random moments under load; and what has to be true
//! when they are left in peace.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use sim::Device;

use super::*;
use crate::kill::{Asked, acknowledged_codes_are_held, ask, ended_truly, live, slow_apple};
use crate::support::amount;

const REPLICAS: usize = 3;

struct Field {
    place: Installation,
    balancer: Balancer,
    replicas: Vec<Option<Server>>,
    rng: ChaCha20Rng,
}

impl Field {
    fn start(&mut self, number: usize) {
        let server = self.place.replica(&format!("replica-{number}"), "serve");
        self.replicas[number] = Some(server);
        let up = self.replicas.iter().flatten();
        self.balancer.set(up.map(|server| server.url.as_str()));
    }

    fn kill(&mut self, number: usize) {
        if let Some(server) = self.replicas[number].take() {
            server.kill();
        }
    }

    fn signal(&self, number: usize, name: &str) {
        if let Some(server) = &self.replicas[number] {
            server.signal(name);
        }
    }

    fn database(&self) -> &sim::Postgres {
        self.place.database.as_ref().unwrap()
    }

    /// Something bad happens, while devices live.
    fn strike(&mut self, newcomer: &Device) {
        let moment = Duration::from_millis(self.rng.random_range(0..400));
        let number = self.rng.random_range(0..REPLICAS);
        let what = self.rng.random_range(0..10);
        if (5..=6).contains(&what) {
            self.signal(number, "STOP");
        }
        live(&self.place, newcomer, moment);
        match what {
            0..=4 => {
                self.kill(number);
                self.start(number);
            }
            5..=6 => self.signal(number, "CONT"),
            7 => {
                (0..REPLICAS).for_each(|number| self.kill(number));
                (0..REPLICAS).for_each(|number| self.start(number));
            }
            other => {
                if other == 8 {
                    self.database().kill().unwrap();
                } else {
                    self.database().stop().unwrap();
                }
                live(&self.place, newcomer, moment);
                self.database().begin().unwrap();
            }
        }
    }
}

#[test]
fn r4_r14_r16_blows_at_random_lose_nothing_and_claim_nothing() {
    let blows = amount("LOCKWARDEN_BLOWS", 20);
    let place = Installation::on_a_database_server();
    // What a dead process held is free again soon.
    place.with_short_calls();
    let balancer = Balancer::start(&place.runtime);
    place.hook(&balancer.url());
    let mut field = Field {
        rng: ChaCha20Rng::seed_from_u64(amount("LOCKWARDEN_SEED", 5).into()),
        place,
        balancer,
        replicas: (0..REPLICAS).map(|_| None).collect(),
    };
    (0..REPLICAS).for_each(|number| field.start(number));
    let front = Server::elsewhere(&field.balancer.url());
    let mut told: BTreeMap<String, Device> = BTreeMap::new();
    let mut asked: Vec<Asked> = Vec::new();
    let mut locked: Option<Device> = None;
    for blow in 0..blows {
        let newcomer = field.place.device(Kind::ALL[blow as usize % 5]);
        if let Some(device) = locked.take() {
            slow_apple(&field.place, &device, &mut field.rng);
            asked.extend(ask(&field.place, &front, &device));
        }
        {
            let _in_runtime = field.place.runtime.enter();
            newcomer.enrol();
        }
        field.strike(&newcomer);
        wait_for("one of them to be ready", || {
            let mut up = field.replicas.iter().flatten();
            up.any(|server| is_ready(&field.place, server))
                .then_some(())
        });
        field.place.wait_for_code(&front, &newcomer);
        newcomer.lock_with_own_code().unwrap();
        told.insert(newcomer.serial(), newcomer.clone());
        locked = Some(newcomer);
    }
    let place = &field.place;
    acknowledged_codes_are_held(place, &front, &told);
    for asked in &asked {
        ended_truly(place, &front, asked);
    }
    assert!(asked.len() as u32 >= blows / 2, "{} unlocks", asked.len());
    // Whoever sealed the record may have been killed; after half a minute another does.
    let verify = || local(place, &["audit", "verify", "--json"]).json();
    wait_for("the record to be sealed", || {
        (verify()["unsealed"] == 0).then_some(())
    });
    for server in field.replicas.iter_mut().filter_map(Option::take) {
        assert_eq!(server.stop(), Some(0), "{}", place.log());
    }
    // Nothing of it went outside, which alone would prove it; it is whole.
    let verified = verify();
    assert_eq!(verified["verdict"], "unproven", "{verified}");
    assert_eq!(verified["unsealed"], 0, "{verified}");
}
