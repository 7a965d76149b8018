//! The integration tests of the client, in one binary: real servers, and a network that fails on purpose.
//!
//! `proxy` breaks connections, `servers` starts longwire, RabbitMQ and ActiveMQ and kills them, `scenario` is what is done
//! to both and what must hold; `realtime`, `stomp`, `feed` and `pool` are the clients that go through it, `order` is what a
//! queue promises of it; `features` and `brokers` are what they can do where nothing breaks; `causes` has the faults that need
//! a server of their own; `examples` runs what `examples/` has. What must stay true: no test waits for a time to pass
//! where it could wait for a condition, every wait has a limit, and what is missing on a machine fails and says so.

mod brokers;
mod causes;
mod examples;
mod features;
mod feed;
mod harness;
mod order;
mod pool;
mod proxy;
mod realtime;
mod scenario;
mod servers;
mod stomp;

use longwire_client::{Options, Reconnect, Timeouts};
use std::time::Duration;

/// Short times, so that fifty breaks are over in minutes.
fn options() -> Options {
    Options {
        reconnect: Reconnect {
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_millis(400),
            stable_after: Duration::from_millis(200),
            ..Reconnect::default()
        },
        timeouts: Timeouts { silence: Duration::from_secs(2), ..Timeouts::default() },
        ..Options::default()
    }
}
