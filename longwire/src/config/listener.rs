//! What is listened on: every address of `server.listen` and every section `[listeners.NAME]`, in one list.
//!
//! A [`Listener`] is a section whose address is known and whose TLS files are a pair. The rest of the program knows
//! a listener by its index in `Config::listeners`. What must stay true: names are different, and the order is
//! that of `server.listen`, then that of the names.

use super::words::{FirstPacket, Framing, LengthCounts, LengthOrder, PlainFormat, Protocol};
use super::{ListenerSection, Section};
use longwire_protocol::heartbeat::{Intervals, OFF};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Something to listen on; see [`ListenerSection`] for what each field means.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// What it is called in logs and in what the backend is told.
    pub name: String,
    /// The address and port.
    pub address: SocketAddr,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The files for TLS; `None` if everything is in plain text.
    pub tls: Option<Tls>,
    /// How long a plain client may be silent; zero means for ever.
    pub idle_timeout: Duration,
    /// Time between pings to plain clients; zero means that there are none.
    pub ping_interval: Duration,
    /// The ping of TCP; empty for none.
    pub ping_packet: String,
    /// Messages that are only signs of life.
    pub heartbeat_messages: Vec<String>,
    /// What they are answered with; empty for nothing.
    pub heartbeat_answer: String,
    /// What plain clients get.
    pub format: PlainFormat,
    /// How a packet's end is known.
    pub framing: Framing,
    /// The 1 to 8 bytes that end a packet.
    pub terminator: String,
    /// Bytes of the length field: 1, 2 or 4.
    pub length_bytes: usize,
    /// Their order.
    pub length_order: LengthOrder,
    /// Bytes before the length field.
    pub length_offset: usize,
    /// Bytes before the body.
    pub body_offset: usize,
    /// What the length counts.
    pub length_counts: LengthCounts,
    /// Whether messages are packets with their heads.
    pub whole_packets: bool,
    /// Size of one packet.
    pub max_packet_bytes: usize,
    /// What a client's first packet is.
    pub first_packet: FirstPacket,
}

/// The files that make a listener one of TLS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tls {
    /// The chain of certificates, in PEM.
    pub certificate: PathBuf,
    /// The first one's key, in PEM.
    pub key: PathBuf,
}

impl Listener {
    /// A listener with the default options.
    pub fn new(name: &str, address: SocketAddr, protocol: Protocol) -> Listener {
        let section = ListenerSection { protocol, ..ListenerSection::defaults() };
        Listener::of(name.to_owned(), address, section)
    }

    /// How signs of life go on its plain connections with a way back.
    pub fn intervals(&self) -> Intervals {
        let or_off = |time: Duration| if time.is_zero() { OFF } else { time };
        let interval = or_off(self.ping_interval);
        Intervals { interval, timeout: interval, max_silence: or_off(self.idle_timeout) }
    }

    fn of(name: String, address: SocketAddr, section: ListenerSection) -> Listener {
        let tls = section.tls_certificate.zip(section.tls_key);
        Listener {
            name,
            address,
            protocol: section.protocol,
            tls: tls.map(|(certificate, key)| Tls { certificate, key }),
            idle_timeout: section.idle_timeout,
            ping_interval: section.ping_interval,
            ping_packet: section.ping_packet,
            heartbeat_messages: section.heartbeat_messages,
            heartbeat_answer: section.heartbeat_answer,
            format: section.format,
            framing: section.framing,
            terminator: section.terminator,
            length_bytes: section.length_bytes,
            length_order: section.length_order,
            length_offset: section.length_offset,
            body_offset: section.body_offset.unwrap_or(section.length_offset + section.length_bytes),
            length_counts: section.length_counts,
            whole_packets: section.whole_packets,
            max_packet_bytes: section.max_packet_bytes,
            first_packet: section.first_packet,
        }
    }
}

/// The listeners of addresses alone.
pub(super) fn of_addresses(addresses: &[SocketAddr]) -> Vec<Listener> {
    resolve(addresses, &BTreeMap::new())
}

/// All listeners. A section without an address is left out: it is refused elsewhere.
pub(super) fn resolve(
    addresses: &[SocketAddr],
    sections: &BTreeMap<String, ListenerSection>,
) -> Vec<Listener> {
    let numbers = std::iter::once(String::new()).chain((2..).map(|number: usize| number.to_string()));
    // A section may have such a name already.
    let names = numbers.map(|number| format!("http{number}")).filter(|name| !sections.contains_key(name));
    let of_addresses = addresses.iter().zip(names);
    let of_addresses = of_addresses.map(|(address, name)| Listener::new(&name, *address, Protocol::Http));
    let named = sections
        .iter()
        .filter_map(|(name, section)| Some(Listener::of(name.clone(), section.address?, section.clone())));
    of_addresses.chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources, demo, load};

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    fn loaded(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<(Config, Sources), String> {
        let file = Some((PathBuf::from("longwire.toml"), file.to_owned()));
        load(file, pairs(env).into_iter(), &pairs(flags), 1_000_000, 4).map_err(|error| error.to_string())
    }

    fn names(config: &Config) -> Vec<String> {
        let listeners = config.listeners.iter();
        listeners.map(|one| format!("{} {} {}", one.name, one.protocol.as_str(), one.address)).collect()
    }

    #[test]
    fn the_short_form_and_named_listeners_are_one_table() {
        let devices = "[listeners.devices]\naddress = \"[::]:9501\"\nprotocol = \"tcp\"\n";
        let (config, _) = loaded(devices, &[], &[]).unwrap();
        assert_eq!(names(&config), ["http http 127.0.0.1:8000", "devices tcp [::]:9501"]);
        let web = "[listeners.http]\naddress = \"0.0.0.0:80\"";
        let (config, _) = loaded(&format!("{devices}{web}"), &[], &[]).unwrap();
        assert_eq!(names(&config), ["devices tcp [::]:9501", "http http 0.0.0.0:80"], "no default beside it");
        let env = [("LONGWIRE_LISTENERS__WEB__ADDRESS", "0.0.0.0:80")];
        let flags = [("server.listen", "127.0.0.1:1,127.0.0.1:2"), ("listeners.http.address", "127.0.0.1:3")];
        let (config, _) = loaded("", &env, &flags).unwrap();
        let expected = [
            "http2 http 127.0.0.1:1",
            "http3 http 127.0.0.1:2",
            "http http 127.0.0.1:3",
            "web http 0.0.0.0:80",
        ];
        assert_eq!(names(&config), expected);
    }

    #[test]
    fn the_options_of_a_listener_are_read_and_printed() {
        let file = r#"
            [listeners.devices]
            address = "127.0.0.1:9501"
            protocol = "tcp"
            tls_certificate = "a.pem"
            tls_key = "b.pem"
            idle_timeout = "90s"
            ping_interval = "0s"
            ping_packet = "ping"
            heartbeat_messages = ["Hello!", "\u0001"]
            heartbeat_answer = "pong"
            format = "bare"
            framing = "length"
            length_bytes = 2
            length_order = "little"
            length_offset = 4
            body_offset = 8
            length_counts = "packet"
            whole_packets = true
            max_packet_bytes = "1MiB"
            first_packet = "json"
            [listeners.lines]
            address = "127.0.0.1:9502"
            protocol = "tcp"
            terminator = "\r\n\u0000\""
        "#;
        let (config, sources) = loaded(file, &[], &[]).unwrap();
        let [_, devices, lines] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
        assert_eq!(devices.tls, Some(Tls { certificate: "a.pem".into(), key: "b.pem".into() }));
        assert_eq!(devices.heartbeat_messages, ["Hello!", "\u{1}"]);
        assert_eq!((devices.length_bytes, devices.length_offset, devices.body_offset), (2, 4, 8));
        assert_eq!((devices.first_packet, devices.max_packet_bytes), (FirstPacket::Json, 1 << 20));
        assert!(devices.whole_packets && devices.ping_interval.is_zero());
        assert_eq!((&*lines.terminator, lines.tls.is_none()), ("\r\n\0\"", true));
        let printed = sources.to_string();
        assert!(printed.contains(r#"terminator = "\r\n\u0000\"" # from longwire.toml line"#), "{printed}");
        assert_eq!(loaded(&printed, &[], &[]).unwrap().0, config);
        for file in ["[listeners.web]\naddress = \"127.0.0.1:1\"", "server.listen = [\"127.0.0.1:1\"]", ""] {
            let (config, sources) = loaded(file, &[], &[]).unwrap();
            assert_eq!(loaded(&sources.to_string(), &[], &[]).unwrap().0, config, "{file}");
        }
    }

    #[test]
    fn listeners_that_cannot_work_are_refused_with_setting_and_line() {
        let of = |options: &str| format!("[listeners.devices]\naddress = \"127.0.0.1:9501\"\n{options}");
        let tcp = |options: &str| of(&format!("protocol = \"tcp\"\n{options}"));
        for (file, line, expected) in [
            (
                "[listeners.devices]\nprotocol = \"tcp\"".to_owned(),
                2,
                "`listeners.devices.address` is not set",
            ),
            (of("tls_certificate = \"a\""), 3, "has no effect without `listeners.devices.tls_key`"),
            (of("tls_key = \"a\""), 3, "has no effect without `listeners.devices.tls_certificate`"),
            (of("idle_timeout = \"20s\""), 3, "`listeners.devices.ping_interval` (25s) must be shorter than"),
            (tcp("ping_packet = \"p\"\nidle_timeout = \"20s\""), 5, "must be shorter than"),
            (
                of("heartbeat_answer = \"pong\""),
                3,
                "no effect without `listeners.devices.heartbeat_messages`",
            ),
            (
                of("protocol = \"stomp\"\nformat = \"bare\""),
                4,
                "no effect unless `listeners.devices.protocol` is \"http\" or \"tcp\"",
            ),
            (of("protocol = \"stomp\"\nfirst_packet = \"token\""), 4, "is \"tcp\""),
            (of("first_packet = \"token\""), 3, "no effect unless `listeners.devices.protocol` is \"tcp\""),
            (of("terminator = \"x\""), 3, "no effect unless `listeners.devices.protocol` is \"tcp\""),
            (tcp("length_bytes = 2"), 4, "no effect unless `listeners.devices.framing` is \"length\""),
            (tcp("framing = \"length\"\nterminator = \"x\""), 5, "is \"terminator\""),
            (tcp("terminator = \"\""), 4, "`listeners.devices.terminator`: must have 1 to 8 bytes, not 0"),
            (tcp("terminator = \"123456789\""), 4, "must have 1 to 8 bytes, not 9"),
            (tcp("terminator = \"1234\"\nmax_packet_bytes = 4"), 5, "must be more than"),
            (
                tcp("terminator = \"END\""),
                4,
                "can stand within JSON, and whoever publishes it would end a packet",
            ),
            (tcp("ping_packet = \"a\\nb\""), 4, "has `listeners.devices.terminator` in it"),
            (
                tcp("heartbeat_messages = [\"a\", \"\\n\"]"),
                4,
                "`listeners.devices.heartbeat_messages`: \"\\n\" has",
            ),
            (
                tcp(&format!(
                    "ping_packet = \"{}\"\nframing = \"length\"\nlength_bytes = 1\nlength_counts = \"packet\"",
                    "x".repeat(255)
                )),
                4,
                "`listeners.devices.length_bytes` cannot say more than 254 bytes",
            ),
            (tcp("framing = \"length\"\nlength_bytes = 3"), 5, "must be 1, 2 or 4"),
            (tcp("framing = \"length\"\nbody_offset = 3"), 5, "is within the length field, which ends at 4"),
            (tcp("framing = \"length\"\nlength_offset = 300"), 5, "at most 255 bytes"),
            (tcp("framing = \"length\"\nmax_packet_bytes = 4"), 5, "must be more than"),
            (tcp("max_packet_bytes = \"2GiB\""), 4, "must be at most 1GiB"),
            (of("protocol = \"udp\""), 3, "must be one of \"http\", \"tcp\", \"stomp\""),
            (
                of("address = \"x\"").replacen("address = \"127.0.0.1:9501\"\n", "", 1),
                2,
                "must be an address",
            ),
            (of("[listeners.web]\naddress = \"127.0.0.1:9501\""), 4, "are the same address, 127.0.0.1:9501"),
            (
                of("[server]\nlisten = [\"127.0.0.1:9501\"]"),
                2,
                "`server.listen` and `listeners.devices.address`",
            ),
            ("[server]\nlisten = [\"[::]:1\", \"[::]:1\"]".to_owned(), 2, "[::]:1 is named twice"),
            ("[listeners.x]\naddress = \"[::]:1\"".to_owned(), 1, "a listener's name is two or more"),
        ] {
            let problem = loaded(&file, &[], &[]).expect_err(&file);
            let place = format!("in longwire.toml line {line}: ");
            assert!(problem.contains(&place) && problem.contains(expected), "{file}: {problem}");
        }
        assert!(loaded(&tcp("terminator = \"END\"\nformat = \"bare\""), &[], &[]).is_ok());
        // A ping that is not sent need not be in time, and port 0 is another one each time.
        assert!(loaded(&tcp("idle_timeout = \"10s\""), &[], &[]).is_ok());
        assert!(loaded("", &[], &[("server.listen", "127.0.0.1:0,127.0.0.1:0")]).is_ok());
    }

    #[test]
    fn a_demo_that_listens_elsewhere_opens_nothing_else() {
        let of = |env: &[(&str, &str)], flags: &[(&str, &str)]| {
            names(&demo(pairs(env).into_iter(), &pairs(flags), 1000, 1).unwrap().0)
        };
        let usual = ["http http 127.0.0.1:8000", "stomp stomp 127.0.0.1:61613", "tcp tcp 127.0.0.1:9501"];
        assert_eq!(of(&[], &[]), usual);
        let moved = [("server.listen", "127.0.0.1:0")];
        assert_eq!(of(&[], &moved), ["http http 127.0.0.1:0"]);
        assert_eq!(of(&[("LONGWIRE_SERVER__LISTEN", "127.0.0.1:0")], &[]), ["http http 127.0.0.1:0"]);
        let named = [moved[0], ("listeners.tcp.address", "127.0.0.1:0")];
        let moved = ["http http 127.0.0.1:0", "stomp stomp 127.0.0.1:61613", "tcp tcp 127.0.0.1:0"];
        assert_eq!(of(&[], &named), moved);
    }
}
