//! A PostgreSQL server that is slow, or takes no more connections.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use sim::relay::{Line, Relay};

use super::*;

/// An installation whose server reaches its database by a line of its own.
fn by_a_line(place: &Installation) -> Relay {
    let database = place.database.as_ref().unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], database.port()));
    let relay = place.runtime.block_on(Relay::start(to)).unwrap();
    let address = database
        .url("vault")
        .replace(&to.to_string(), &relay.address().to_string());
    std::fs::write(place.path("database"), address).unwrap();
    relay
}

/// What becomes of the first webhook of a device that enrols.
fn enrol_and_wait(place: &Installation, device: &Device) -> Delivery {
    let before = place.mdm.webhooks().all().len();
    {
        let _in_runtime = place.runtime.enter();
        device.enrol();
    }
    wait_for("a webhook to be answered", || {
        let all = place.mdm.webhooks().all();
        let answer = all.get(before)?.delivery.clone();
        (!matches!(answer, Delivery::OnItsWay)).then_some(answer)
    })
}

#[test]
fn a_database_that_is_slow_is_said_to_be_and_what_it_kept_is_there() {
    let mut place = Installation::on_a_database_server();
    let relay = by_a_line(&place);
    let server = place.serve();
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    relay.set(Line::Slow(Duration::from_secs(5)));
    wait_for("the server to notice", || {
        let said = place.get(&server, "/readyz");
        said.contains("The database does not answer").then_some(())
    });
    assert!(
        place
            .log()
            .contains("not ready: the database does not answer")
    );
    // What this process counts is shown all the same.
    let metrics = place.get(&server, "/metrics");
    assert!(
        metrics.contains("lockwarden_vault_answers{} 0.0"),
        "{metrics}"
    );
    assert!(metrics.contains("lockwarden_webhooks_total"), "{metrics}");
    let second = place.device(Kind::ALL[1]);
    // It is kept late, or refused in the end.
    enrol_and_wait(&place, &second);
    relay.set(Line::Good);
    wait_for("the server to be ready", || {
        is_ready(&place, &server).then_some(())
    });
    place.wait_for_code(&server, &first);
    place.wait_for_code(&server, &second);
    assert_eq!(server.stop(), Some(0));
}

/// A connection that does nothing but be there; `None` when the server takes no more.
fn idle(to: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(to).unwrap();
    let words = b"user\0lockwarden\0database\0postgres\0\0";
    let length = u32::try_from(8 + words.len()).unwrap();
    let mut hello = length.to_be_bytes().to_vec();
    hello.extend(0x0003_0000_u32.to_be_bytes());
    hello.extend(words);
    stream.write_all(&hello).unwrap();
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    // `R` is the beginning of a welcome, `E` an error.
    (kind == *b"R").then_some(stream)
}

#[test]
fn a_database_that_takes_no_more_connections_is_said_to_and_is_used_again_once_it_does() {
    let mut place = Installation::on_a_database_server();
    let database = place.database.as_ref().unwrap();
    database.configure("max_connections = 16\n").unwrap();
    database.stop().unwrap();
    database.begin().unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], database.port()));
    let relay = by_a_line(&place);
    let server = place.serve();
    let first = place.device(Kind::ALL[0]);
    enrol(&place, &first);
    place.wait_for_code(&server, &first);
    relay.set(Line::Broken);
    // Others take its places as they become free.
    let mut others = Vec::new();
    wait_for("all places to be taken", || {
        while let Some(other) = idle(to) {
            others.push(other);
        }
        (others.len() == 16).then_some(())
    });
    relay.set(Line::Good);
    wait_for("the server to notice", || {
        (!is_ready(&place, &server)).then_some(())
    });
    wait_for("the log to say why", || {
        place.log().contains("too many clients").then_some(())
    });
    let second = place.device(Kind::ALL[1]);
    let answer = enrol_and_wait(&place, &second);
    assert!(!matches!(answer, Delivery::Answered(200)), "{answer:?}");
    drop(others);
    wait_for("the server to be ready", || {
        is_ready(&place, &server).then_some(())
    });
    place.wait_for_code(&server, &first);
    place.wait_for_code(&server, &second);
    assert_eq!(server.stop(), Some(0));
}
