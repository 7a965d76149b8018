//! What a listener's settings mean for the connections that come by it, in the words of the protocol.
//!
//! Made once at the start and shared: no connection keeps a copy of its own. It listens to nothing; that is
//! `server`'s.

use crate::config::{self, Listener, Protocol};
use bytes::Bytes;
use longwire_protocol::heartbeat::Intervals;
use longwire_protocol::plain::framing::{ByteOrder, Counts, Framing, LengthField, Terminator};
use longwire_protocol::plain::{Beats, FirstPacket, Format};
use std::sync::Arc;

/// What the transports know of a listener.
#[derive(Debug)]
pub struct Listening {
    /// What is spoken.
    pub protocol: Protocol,
    /// What plain clients get, unless they ask for something else.
    pub format: Format,
    /// Signs of life of plain clients.
    pub beats: Arc<Beats>,
    /// When those are due on plain connections with a way back.
    pub intervals: Intervals,
    /// How a packet ends.
    pub framing: Framing,
    /// Size of one packet.
    pub max_packet_bytes: u32,
    /// What a client's first packet is.
    pub first_packet: FirstPacket,
}

impl Listening {
    /// What `listener` is set to.
    pub fn new(listener: &Listener) -> Listening {
        let text = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        Listening {
            protocol: listener.protocol,
            format: match listener.format {
                config::PlainFormat::Json => Format::Json,
                config::PlainFormat::Bare => Format::Bare,
            },
            beats: Arc::new(Beats {
                messages: listener.heartbeat_messages.iter().map(text).collect(),
                answer: text(&listener.heartbeat_answer),
                ping_packet: text(&listener.ping_packet),
            }),
            intervals: listener.intervals(),
            framing: framing(listener),
            max_packet_bytes: u32::try_from(listener.max_packet_bytes).unwrap_or(u32::MAX),
            first_packet: match listener.first_packet {
                config::FirstPacket::None => FirstPacket::None,
                config::FirstPacket::Client => FirstPacket::Client,
                config::FirstPacket::Token => FirstPacket::Token,
                config::FirstPacket::Json => FirstPacket::Json,
            },
        }
    }
}

fn framing(listener: &Listener) -> Framing {
    match listener.framing {
        config::Framing::Terminator => {
            let terminator = Terminator::new(listener.terminator.as_bytes());
            Framing::Terminator(terminator.expect("the configuration was checked"))
        }
        config::Framing::Length => Framing::Length(LengthField {
            bytes: listener.length_bytes as u8,
            order: match listener.length_order {
                config::LengthOrder::Big => ByteOrder::Big,
                config::LengthOrder::Little => ByteOrder::Little,
            },
            offset: listener.length_offset as u8,
            body_offset: listener.body_offset as u8,
            counts: match listener.length_counts {
                config::LengthCounts::Body => Counts::Body,
                config::LengthCounts::Packet => Counts::Packet,
            },
            is_whole: listener.whole_packets,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What is said of the settings of a listener of packets, or their framing.
    fn framing_of(options: &str) -> Result<Framing, String> {
        let file =
            format!("[listeners.devices]\naddress = \"127.0.0.1:9501\"\nprotocol = \"tcp\"\n{options}");
        let file = Some(("longwire.toml".into(), file));
        let (config, _) =
            config::load(file, std::iter::empty(), &[], 1_000_000, 4).map_err(|error| error.to_string())?;
        let devices = config.listeners.iter().find(|listener| listener.name == "devices");
        Ok(framing(devices.expect("it is configured")))
    }

    #[test]
    fn the_framings_that_settings_may_say_are_those_of_the_protocol() {
        for len in 0..=10 {
            let terminator = "\u{1}".repeat(len);
            let said = framing_of(&format!("terminator = \"{}\"", "\\u0001".repeat(len)));
            let expected = Terminator::new(terminator.as_bytes()).map(Framing::Terminator);
            assert_eq!(said.ok(), expected, "{len}");
        }
        for bytes in [1, 2, 4] {
            for offset in [0, 1, 250, 251, 252, 253, 254, 255, 256] {
                for body_offset in [0, 1, 2, 4, 5, 254, 255, 256, 257, 260] {
                    let options = format!(
                        "framing = \"length\"\nlength_bytes = {bytes}\nlength_offset = {offset}\nbody_offset = {body_offset}"
                    );
                    let small = |number: usize| u8::try_from(number).ok();
                    let expected = small(offset).zip(small(body_offset)).and_then(|(offset, body_offset)| {
                        let (order, counts) = (ByteOrder::Big, Counts::Body);
                        let field =
                            LengthField { bytes, order, offset, body_offset, counts, is_whole: false };
                        field.check().is_ok().then_some(Framing::Length(field))
                    });
                    assert_eq!(framing_of(&options).ok(), expected, "{options}");
                }
            }
        }
    }
}
