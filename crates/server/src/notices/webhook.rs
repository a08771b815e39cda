//! A notice as a POST that is signed by the scheme of Standard Webhooks (standardwebhooks.com): `webhook-id`, `webhook-timestamp` in
//! seconds, and `webhook-signature`, a list of `v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`.

use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use escrow::notices::{Delivery, Taken, WEBHOOK_SECRET_PREFIX};
use zeroize::Zeroizing;

use super::document;
use crate::App;

/// Sends it.
pub(super) async fn send(app: &App, delivery: &Delivery) -> Taken {
    let body = document(delivery).to_string();
    // By the machine's clock: the far end compares it with its own.
    let timestamp = app.machine_now().0.div_euclid(1_000).to_string();
    let signatures = delivery
        .secrets
        .iter()
        .filter_map(|secret| signature(secret, &delivery.notice, &timestamp, &body));
    let signatures = signatures.collect::<Vec<_>>().join(" ");
    let headers = [
        ("webhook-id", delivery.notice.as_str()),
        ("webhook-timestamp", &timestamp),
        ("webhook-signature", &signatures),
    ];
    let Some(target) = &delivery.target else {
        return Taken::Never("the channel has no address".to_owned());
    };
    // The path may be what lets one in: what is told is the host.
    let shown = &delivery.channel.address;
    match app.mdm.deliver(target, shown, &headers, body).await {
        Ok(reply) => judge(shown, reply.status, reply.retry_after),
        Err(why) => Taken::Later(why, None),
    }
}

/// One signature; nothing for a secret that is none.
fn signature(secret: &str, id: &str, timestamp: &str, body: &str) -> Option<String> {
    let encoded = secret.strip_prefix(WEBHOOK_SECRET_PREFIX)?;
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let key = Key::new(HMAC_SHA256, &bytes);
    let tag = sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

fn judge(address: &str, status: u16, retry_after: Option<Duration>) -> Taken {
    match status {
        200..=299 => Taken::Yes,
        // "Gone" means that it wants no more of them.
        410 => Taken::Never(format!("{address} answered status 410: it takes no more")),
        _ => Taken::Later(format!("{address} answered status {status}"), retry_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementations of Standard Webhooks.
    #[test]
    fn it_signs_as_the_reference_does() {
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signed.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert_eq!(signature("not one", "a", "1", "{}"), None);
    }

    #[test]
    fn only_success_is_taken_and_gone_is_never() {
        let judged = |status| judge("https://a.example", status, None);
        assert!(matches!(judged(204), Taken::Yes) && matches!(judged(410), Taken::Never(_)));
        for status in [301, 400, 404, 429, 500] {
            assert!(matches!(judged(status), Taken::Later(..)), "{status}");
        }
    }
}
