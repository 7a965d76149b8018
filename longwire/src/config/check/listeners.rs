//! What must fit together in `[listeners.NAME]`.
//!
//! Called by [`super::problems`]. What must stay true: a value that has no effect on its listener is refused,
//! because whoever wrote it expects one; and what passes is a framing that the protocol crate accepts.

use crate::config::words::{Framing, LengthCounts, PlainFormat, Protocol};
use crate::config::{Config, ListenerSection, Section, format_duration};
use longwire_protocol::plain::Terminator;
use longwire_protocol::plain::framing::MAX_HEAD_BYTES;

/// More listeners than this is a mistake; their index has 16 bits.
const MAX_LISTENERS: usize = 256;

/// Largest packet that may be allowed.
const MAX_PACKET_BYTES: usize = 1 << 30;

/// Settings that only packets have.
const OF_PACKETS: &[&str] = &["ping_packet", "framing", "max_packet_bytes", "first_packet"];

/// Settings of all connections of the plain dialect.
const OF_PLAIN: &[&str] =
    &["idle_timeout", "ping_interval", "heartbeat_messages", "heartbeat_answer", "format"];

/// Settings of packets with a length field.
const OF_LENGTHS: &[&str] =
    &["length_bytes", "length_order", "length_offset", "body_offset", "length_counts", "whole_packets"];

/// Refuses what does not fit.
pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&[&str], String)) {
    for (name, section) in &config.listener_sections {
        check_section(name, section, refuse);
    }
    if config.listeners.len() > MAX_LISTENERS {
        refuse(&["server.listen"], format!("there must be at most {MAX_LISTENERS} listeners"));
    }
    let addresses: Vec<_> = config.listeners.iter().take(MAX_LISTENERS).collect();
    for (index, second) in addresses.iter().enumerate() {
        // Port 0 is another one each time.
        let is_same = |first: &&&_| -> bool { is_at(first, second) };
        if let Some(first) = addresses[..index].iter().find(is_same) {
            let key = |name: &str| match config.listener_sections.contains_key(name) {
                true => format!("listeners.{name}.address"),
                false => "server.listen".to_owned(),
            };
            let (first, second_key) = (key(&first.name), key(&second.name));
            let text = match first == second_key {
                true => format!("`{first}`: {} is named twice", second.address),
                false => format!("`{first}` and `{second_key}` are the same address, {}", second.address),
            };
            refuse(&[&second_key, &first], text);
        }
    }
}

fn is_at(first: &crate::config::Listener, second: &crate::config::Listener) -> bool {
    first.address == second.address && first.address.port() != 0
}

fn check_section(name: &str, section: &ListenerSection, refuse: &mut impl FnMut(&[&str], String)) {
    let key = |setting: &str| format!("listeners.{name}.{setting}");
    if section.address.is_none() {
        let keys: Vec<String> = ListenerSection::fields().iter().map(|field| key(field.key)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        refuse(&keys, format!("`{}` is not set: there is nothing to listen on", key("address")));
    }
    let tls = [("tls_certificate", &section.tls_certificate), ("tls_key", &section.tls_key)];
    if let [(set, Some(_)), (missing, None)] | [(missing, None), (set, Some(_))] = tls {
        let (set, missing) = (&key(set), &key(missing));
        refuse(&[set, missing], format!("`{set}` has no effect without `{missing}`: TLS needs both"));
    }
    let pings = match section.protocol {
        Protocol::Http => true,
        Protocol::Tcp => !section.ping_packet.is_empty(),
        Protocol::Stomp => false,
    };
    if pings
        && !section.idle_timeout.is_zero()
        && !section.ping_interval.is_zero()
        && section.ping_interval >= section.idle_timeout
    {
        let (interval, timeout) = (&key("ping_interval"), &key("idle_timeout"));
        refuse(
            &[interval, timeout],
            format!(
                "`{interval}` ({}) must be shorter than `{timeout}` ({}): whoever is silent is asked before it is closed",
                format_duration(section.ping_interval),
                format_duration(section.idle_timeout)
            ),
        );
    }
    if !section.heartbeat_answer.is_empty() && section.heartbeat_messages.is_empty() {
        let (answer, messages) = (&key("heartbeat_answer"), &key("heartbeat_messages"));
        refuse(&[answer, messages], format!("`{answer}` has no effect without `{messages}`"));
    }
    let useless: &[(&[&str], &str, &str)] = match (section.protocol, section.framing) {
        (Protocol::Http, _) => &[
            (OF_PACKETS, "protocol", "tcp"),
            (OF_LENGTHS, "protocol", "tcp"),
            (&["terminator"], "protocol", "tcp"),
        ],
        (Protocol::Stomp, _) => &[
            (OF_PLAIN, "protocol", "http\" or \"tcp"),
            (OF_PACKETS, "protocol", "tcp"),
            (OF_LENGTHS, "protocol", "tcp"),
            (&["terminator"], "protocol", "tcp"),
        ],
        (Protocol::Tcp, Framing::Terminator) => &[(OF_LENGTHS, "framing", "length")],
        (Protocol::Tcp, Framing::Length) => &[(&["terminator"], "framing", "terminator")],
    };
    // Another value than the default, because `longwire check` prints defaults, too, and means the same by it.
    let defaults = ListenerSection::defaults();
    let fields = ListenerSection::fields();
    let is_chosen = |setting: &str| {
        let field = fields.iter().find(|field| field.key == setting);
        field.is_some_and(|field| (field.show)(section) != (field.show)(&defaults))
    };
    for (settings, chosen_by, value) in useless {
        for setting in settings.iter().filter(|setting| is_chosen(setting)) {
            let (setting, chosen_by) = (&key(setting), &key(chosen_by));
            refuse(
                &[setting, chosen_by],
                format!("`{setting}` has no effect unless `{chosen_by}` is \"{value}\""),
            );
        }
    }
    if section.protocol == Protocol::Tcp {
        check_packets(&key, section, refuse);
    }
}

fn check_packets(
    key: &impl Fn(&str) -> String,
    section: &ListenerSection,
    refuse: &mut impl FnMut(&[&str], String),
) {
    let max = &key("max_packet_bytes");
    if section.max_packet_bytes > MAX_PACKET_BYTES {
        refuse(&[max], format!("`{max}`: must be at most 1GiB"));
    }
    match section.framing {
        Framing::Terminator => {
            let (terminator, len) = (&key("terminator"), section.terminator.len());
            if !(1..=Terminator::MAX_BYTES).contains(&len) {
                let max = Terminator::MAX_BYTES;
                let text = format!("`{terminator}`: must have 1 to {max} bytes, not {len}");
                refuse(&[terminator], text);
            } else if section.max_packet_bytes <= len {
                let text =
                    format!("`{max}` ({}) must be more than `{terminator}` has", section.max_packet_bytes);
                refuse(&[max, terminator], text);
            }
            let is_in_json = |known: Terminator| !known.is_foreign_to_json();
            if section.format == PlainFormat::Json
                && Terminator::new(section.terminator.as_bytes()).is_some_and(is_in_json)
            {
                let format = &key("format");
                let text = "can stand within JSON, and whoever publishes it would end a packet there: it needs a \
                            control character";
                refuse(&[terminator, format], format!("`{terminator}`: {text}, or `{format}` be \"bare\""));
            }
            let has_it = |text: &str| len > 0 && text.contains(&section.terminator);
            for (setting, text) in signs_of_life(section).filter(|(_, text)| has_it(text)) {
                let setting = &key(setting);
                let text =
                    format!("`{setting}`: {text:?} has `{terminator}` in it, and would be several packets");
                refuse(&[setting, terminator], text);
            }
        }
        Framing::Length => {
            let (offset, size, body) = (&key("length_offset"), &key("length_bytes"), &key("body_offset"));
            let end = section.length_offset + section.length_bytes;
            let begin = section.body_offset.unwrap_or(end);
            if begin < end {
                refuse(
                    &[body, offset, size],
                    format!("`{body}` ({begin}) is within the length field, which ends at {end}"),
                );
            } else if begin > MAX_HEAD_BYTES {
                let text =
                    format!("at most {MAX_HEAD_BYTES} bytes may be before a packet's body, not {begin}");
                refuse(&[body, offset, size], format!("`{body}`, `{offset}`: {text}"));
            } else if section.max_packet_bytes <= begin {
                let text = format!(
                    "`{max}` ({}) must be more than what is before the body",
                    section.max_packet_bytes
                );
                refuse(&[max, body, offset], text);
            }
            let head_bytes = match section.length_counts {
                LengthCounts::Packet => begin,
                LengthCounts::Body => 0,
            };
            let most = u32::MAX >> (32 - 8 * section.length_bytes.clamp(1, 4));
            let longest = (most as usize).saturating_sub(head_bytes);
            let is_too_long = |text: &str| !section.whole_packets && text.len() > longest;
            for (setting, _) in signs_of_life(section).filter(|(_, text)| is_too_long(text)) {
                let setting = &key(setting);
                refuse(
                    &[setting, size],
                    format!("`{setting}`: `{size}` cannot say more than {longest} bytes"),
                );
            }
        }
    }
}

/// What a listener of packets sends and takes for a sign of life, by the setting.
fn signs_of_life(section: &ListenerSection) -> impl Iterator<Item = (&'static str, &str)> {
    let messages = section.heartbeat_messages.iter().map(|text| ("heartbeat_messages", &**text));
    let others = [("ping_packet", &*section.ping_packet), ("heartbeat_answer", &*section.heartbeat_answer)];
    others.into_iter().chain(messages)
}
