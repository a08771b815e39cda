//! A standby that was not waited for takes over, and has never heard of a lock whose call has left (R4, R21).

use sim::Postgres;
use sim::postgres::Keeping;

use super::*;
use crate::replicas::is_followed;

#[tokio::test]
async fn r4_r21_a_standby_that_never_had_a_code_has_it_again_from_the_journal() {
    let primary = Postgres::start(Keeping::Unsynced).unwrap();
    primary.create("vault").unwrap();
    let standby = primary.standby().unwrap();
    let both = format!(
        "postgres://lockwarden@127.0.0.1:{},127.0.0.1:{}/vault",
        primary.port(),
        standby.port()
    );
    let desk = Desk::of(Vault::on(&both).await).await;
    is_followed(&primary, &standby).await;
    // From here on it hears nothing.
    standby.stop().unwrap();
    let wish = desk.lock(SERIAL).await;
    let begun = desk.begin().await;
    let code = desk.server_codes().await.remove(0).0;
    primary.kill().unwrap();
    standby.begin().unwrap();
    standby.promote().unwrap();
    // Whatever is written next finds the other server.
    desk.certificate().await;
    desk.escrow.watch_journal().await.unwrap();
    let codes = desk.server_codes().await;
    assert!(
        codes.len() == 1 && codes[0].0 == code,
        "the code is there again"
    );
    // The wish itself is gone with the server that had it; Apple's answer, which comes now, is not lost on the device.
    let calls = standby
        .sql("vault", "SELECT COUNT(*) FROM lock_calls")
        .unwrap();
    assert_eq!(calls, "1");
    drop((wish, begun));
}
