//! Revoking tokens: what is remembered, and which orders the shards get.

use super::{DONE, World};
use longwire_protocol::{Close, CloseReason};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn world(root: &tempfile::TempDir) -> World {
    let mut world = World::new(|config| {
        config.server.data_dir = root.path().join("data");
        config.auth.hmac_secret = Some(SECRET.into());
        config.auth.require_exp = false;
        config.client.insecure = false;
    });
    tokio::spawn(world.keeper.take().unwrap().run());
    world
}

/// Whether a connection token with these claims is taken.
async fn is_taken(world: &World, claims: &serde_json::Value) -> bool {
    let token = crate::auth::sign(SECRET, claims).unwrap();
    match world.node.authenticate(&token).await {
        Ok(_) => true,
        Err(denied) => {
            let refusal = crate::node::Denied::Close(
                Close::from(CloseReason::InvalidToken),
                "the token was revoked".into(),
            );
            assert_eq!(denied, refusal);
            false
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_its_connections_are_closed() {
    let root = tempfile::tempdir().unwrap();
    let world = world(&root);
    let claims = serde_json::json!({"sub": "42", "jti": "a"});
    assert!(is_taken(&world, &claims).await);
    assert_eq!(world.call("revoke_token", r#"{"uid":"a","expire_at":0}"#).await, DONE);
    assert_eq!(world.orders(), [r#"Revoke { revoked: Token("a") }"#]);
    assert!(!is_taken(&world, &claims).await);
    assert!(is_taken(&world, &serde_json::json!({"sub": "42", "jti": "b"})).await);
    assert_eq!(world.call("revoke_token", r#"{"uid":"b","disconnect":false}"#).await, DONE);
    assert_eq!(world.orders(), [] as [&str; 0]);
    assert!(!is_taken(&world, &serde_json::json!({"sub": "42", "jti": "b"})).await);
}

#[tokio::test]
async fn the_older_tokens_of_a_user_are_refused_across_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let first = world(&root);
    let body = r#"{"user":"42","issued_before":1700000000,"disconnect":true}"#;
    assert_eq!(first.call("invalidate_user_tokens", body).await, DONE);
    assert_eq!(first.orders(), [r#"Revoke { revoked: User { user: "42", issued_before: 1700000000 } }"#]);
    drop(first);
    // The keeper sees that nothing more will come, and gives the directory back.
    tokio::task::yield_now().await;
    let world = world(&root);
    for (user, issued_at, expected) in
        [("42", 1_699_999_999, false), ("42", 1_700_000_000, true), ("7", 1, true)]
    {
        let claims = serde_json::json!({"sub": user, "iat": issued_at});
        assert_eq!(is_taken(&world, &claims).await, expected, "{claims}");
    }
    assert!(!is_taken(&world, &serde_json::json!({"sub": "42"})).await, "one without a time of issue");
}

#[tokio::test]
async fn what_matters_no_more_is_not_revoked() {
    let root = tempfile::tempdir().unwrap();
    let world = world(&root);
    assert_eq!(world.call("revoke_token", r#"{"uid":"a","expire_at":1}"#).await, DONE);
    assert_eq!(world.orders(), [] as [&str; 0]);
    assert!(is_taken(&world, &serde_json::json!({"sub": "42", "jti": "a"})).await);
    assert!(!root.path().join("data").exists(), "nothing is kept either");
}

#[tokio::test]
async fn without_a_time_all_tokens_up_to_this_moment_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let world = world(&root);
    let now = world.node.env.clock.unix_seconds();
    assert_eq!(world.call("invalidate_user_tokens", r#"{"user":"42"}"#).await, DONE);
    assert!(!is_taken(&world, &serde_json::json!({"sub": "42", "iat": now - 1})).await);
    assert!(is_taken(&world, &serde_json::json!({"sub": "42", "iat": now + 2})).await);
}
