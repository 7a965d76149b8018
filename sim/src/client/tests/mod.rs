//! The clients against the server's half of `longwire-protocol`, joined in memory: what the server writes is
//! what the real one would write, and what a client sends is read back by the real decoder.

mod centrifuge;
mod event_stream;
mod plain;
mod transports;

use super::{Action, Client, Event, HangUp, Heard, Kind, Output, PlainSettings, Settings, Wanted, make};
use bytes::Bytes;
use longwire::env::rng::Rng;
use longwire_protocol::heartbeat::Intervals;
use longwire_protocol::message::{ClientId, ClientInfo, ConnectResult, Publication, SubscribeResult};
use longwire_protocol::{Epoch, Position};
use std::sync::Arc;
use std::time::Duration;

const INTERVALS: Intervals = Intervals {
    interval: Duration::from_secs(25),
    timeout: Duration::from_secs(8),
    max_silence: Duration::from_secs(35),
};

const CLIENT: &str = "01234567-89ab-4def-8123-456789abcdef";

fn settings(channels: &[&str]) -> Settings {
    Settings {
        host: "node-1:8000".to_owned(),
        channels: channels.iter().map(|channel| Wanted::all(channel)).collect(),
        token: None,
        rng: Rng::from_seed(7),
        offer_deflate: false,
        silence: None,
        plain: PlainSettings::default(),
    }
}

fn client_id() -> ClientId {
    ClientId::parse(CLIENT).unwrap()
}

fn info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: "ann".into(),
        client: client_id(),
        conn_info: Bytes::from_static(b"{\"n\":1}"),
        chan_info: Bytes::new(),
    })
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

fn told(offset: u64) -> Option<(u64, String)> {
    Some((offset, "abcdefgh".to_owned()))
}

fn publication(offset: u64) -> Arc<Publication> {
    let data = format!("{{\"text\":\"{}\",\"n\":{offset}}}", "again and ".repeat(20));
    Arc::new(Publication {
        offset,
        data: data.into(),
        info: Some(info()),
        tags: vec![("k".to_owned(), "v".to_owned())],
        except: None,
        is_json: true,
    })
}

fn heard(offset: u64) -> Heard {
    let data = String::from_utf8(publication(offset).data.to_vec()).unwrap();
    Heard { offset: Some(offset), epoch: Some("abcdefgh".to_owned()), data }
}

fn connected(subs: Vec<(String, SubscribeResult)>) -> ConnectResult {
    ConnectResult {
        client: client_id(),
        version: "longwire 0",
        ttl_seconds: None,
        data: Bytes::new(),
        subs,
        ping_seconds: 25,
        pong: true,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
    }
}

/// A subscription that begins at `offset`.
fn fresh(offset: u64) -> SubscribeResult {
    SubscribeResult {
        recoverable: true,
        positioned: true,
        position: Some(at(offset)),
        ..SubscribeResult::default()
    }
}

/// A subscription that recovers the publications after `offset` up to `top`.
fn recovered(offset: u64, top: u64) -> SubscribeResult {
    SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: (offset + 1..=top).map(publication).collect(),
        ..fresh(offset)
    }
}

#[test]
fn every_kind_has_a_name_of_its_own_and_waits_for_nothing_before_it_is_opened() {
    let names: Vec<&str> = Kind::ALL
        .iter()
        .map(|kind| {
            let client = make(*kind, settings(&["a"]));
            assert_eq!(client.poll_timeout(), None);
            assert!(client.positions().is_empty());
            client.name()
        })
        .collect();
    let different: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(different.len(), names.len());
}
