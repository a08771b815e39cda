//! Many clients at once: those that want something are served among those that do not.

use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sim::Kind;

use crate::installation::Installation;
use crate::support::wait_for;

/// So many keep a connection and say nothing, where the system lets a process have that many.
const IDLE: u64 = 10_000;

#[test]
fn ten_thousand_idle_connections_keep_nobody_waiting() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).unwrap();
    let crowd = limit.maximum.map_or(IDLE, |files| IDLE.min(files - 500));
    let mut place = Installation::new();
    let server = place.serve();
    let address = server.url.strip_prefix("http://").unwrap();
    let idle: Vec<TcpStream> = (0..crowd)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    wait_for("the server to have let them all in", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap();
        (files.count() as u64 > crowd).then_some(())
    });
    let device = place.device(Kind::Iphone);
    {
        let _in_runtime = place.runtime.enter();
        device.authenticate();
    }
    place.runtime.block_on(place.mdm.webhooks_settled());
    assert!(place.get(&server, "/v1/devices").contains("KEPT000001"));
    assert!(place.get(&server, "/readyz").starts_with("HTTP/1.1 200"));
    drop(idle);
    assert_eq!(server.stop(), Some(0));
}
