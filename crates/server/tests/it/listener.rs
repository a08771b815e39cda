//! Clients that keep a connection for nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Options, Stage, in_time};

/// All that the server says to a client that sends this and then nothing more, until the server hangs up.
async fn said_to(stage: &Stage, sent: &str) -> String {
    let url = stage.url();
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut said = String::new();
    let read = stream.read_to_string(&mut said);
    in_time("the server to hang up", read).await.unwrap();
    said
}

#[tokio::test]
async fn who_sends_nothing_more_is_hung_up_on() {
    let stage = Stage::with(Options {
        client_timeout: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    for (sent, status) in [
        ("", ""),
        ("PRI * HT", ""),
        ("POST /v1/hooks/mdm HTTP/1.1\r\nhost: x\r\n", ""),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
        (
            "POST /v1/hooks/mdm HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
            "408",
        ),
        (
            "POST /v1/hooks/mdm/secret HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
            "408",
        ),
    ] {
        let said = said_to(&stage, sent).await;
        assert_eq!(said.split(' ').nth(1).unwrap_or_default(), status, "{sent}");
    }
    let token = stage.token(&["reveal"]).await;
    let slow = format!(
        "POST /v1/devices/SIMTEST00001/reveal HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{"
    );
    let said = said_to(&stage, &slow).await;
    assert!(said.starts_with("HTTP/1.1 408 "));
    assert!(said.contains("urn:lockwarden:problem:too-slow"));
}
