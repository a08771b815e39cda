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

/// The status of an answer to a request that ends its connection.
async fn status_of(stage: &Stage, request: &str) -> String {
    let said = said_to(stage, request).await;
    said.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn heads_without_end_are_refused_and_others_are_served() {
    let stage = Stage::new().await;
    let many: String = (0..200)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    let long = format!("x: {}\r\n", "y".repeat(1024 * 1024));
    for flood in [many, long] {
        let request =
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{flood}connection: close\r\n\r\n");
        let status = status_of(&stage, &request).await;
        // Whoever floods may not even be told.
        assert!(["431", "400", ""].contains(&status.as_str()), "{status}");
    }
    let well = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(status_of(&stage, well).await, "200");
}

#[tokio::test]
async fn a_body_nested_without_end_is_a_bad_request() {
    let stage = Stage::new().await;
    let token = stage.token(&["unlock"]).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        for path in ["/v1/devices/SIMTEST00001/unlock", "/v1/bypass-codes"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let status = status_of(&stage, &request).await;
            assert!(
                ["400", "413", "422"].contains(&status.as_str()),
                "{path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn no_trick_with_a_path_reaches_anything() {
    let stage = Stage::new().await;
    for path in [
        "/v1/../v1/devices",
        "/v1/devices/../../etc/passwd",
        "/v1/devices/%2e%2e/%2e%2e/etc/passwd",
        "//v1/devices",
        "/v1//devices",
        "/v1/devices/",
        "/v1/devices%00",
        "/V1/devices",
        "/v1/hooks/..%2f..%2fdevices",
        "/v1/devices;jsessionid=1",
        "/.git/config",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let status = status_of(&stage, &request).await;
        // Without a token nothing is shown, and what is no route is none.
        assert!(
            ["400", "401", "404", "405"].contains(&status.as_str()),
            "{path}: {status}"
        );
    }
}
