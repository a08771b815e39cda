//! What goes on by itself.

use sim::Kind;

use crate::support::Stage;

#[tokio::test]
async fn the_stage_stands() {
    let mut stage = Stage::new().await;
    let device = stage.device("SIMTEST00001", Kind::Iphone);
    device.enrol();
    stage.mdm.webhooks_settled().await;
    assert!(stage.find("SIMTEST00001").await.is_some());
    stage.stop().await;
    stage.start().await;
    assert!(stage.find("SIMTEST00001").await.is_some());
    assert!(!stage.token(&["read"]).await.is_empty());
}
