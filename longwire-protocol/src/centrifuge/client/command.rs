//! What a client asks: commands, each as one line of JSON.
//!
//! The names are those that the server's decoder reads; everything is borrowed, so that a command costs no more than its
//! bytes. What must stay true: no line break is written, whatever a payload holds; zero values are left out.

use crate::centrifuge::{EmulationRequest, REJECT_UNRECOVERED};
use crate::filter::Node;
use crate::json::{
    write_flag_member, write_key, write_map, write_number, write_number_member, write_payload_member,
    write_string,
};

/// The answer to a heartbeat.
pub const PONG: &[u8] = b"{}";

/// What a client asks. Payloads are raw JSON, empty for none: a server closes the connection if one is not valid.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// Establish the session; must be the first.
    Connect(&'a Connect<'a>),
    /// Take interest in a channel.
    Subscribe(&'a Subscribe<'a>),
    /// Lose interest in a channel.
    Unsubscribe {
        /// The channel.
        channel: &'a str,
    },
    /// Publish into a channel.
    Publish {
        /// The channel.
        channel: &'a str,
        /// What.
        data: &'a [u8],
    },
    /// Who is in a channel.
    Presence {
        /// The channel.
        channel: &'a str,
    },
    /// How many are in a channel.
    PresenceStats {
        /// The channel.
        channel: &'a str,
    },
    /// Retained publications of a channel.
    History {
        /// The channel.
        channel: &'a str,
        /// 0: only the position; negative: everything kept; else at most so many publications.
        limit: i32,
        /// Publications after (or, reversed, before) this position.
        since: Option<Since<'a>>,
        /// Newest first.
        reverse: bool,
    },
    /// Call a method of the backend.
    Rpc {
        /// Its name; may be empty.
        method: &'a str,
        /// With what.
        data: &'a [u8],
    },
    /// Tell the backend something, without a reply: the command's number is not written.
    Send {
        /// What.
        data: &'a [u8],
    },
    /// Prolong the connection with a fresh token.
    Refresh {
        /// The token.
        token: &'a str,
    },
    /// Prolong a subscription with a fresh token.
    SubRefresh {
        /// The channel.
        channel: &'a str,
        /// The token.
        token: &'a str,
    },
}

/// The fields of a connect command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect<'a> {
    /// Connection token (JWT); empty for none.
    pub token: &'a str,
    /// Raw JSON for the backend; empty for none.
    pub data: &'a [u8],
    /// Name of the program.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Headers for the backend.
    pub headers: &'a [(String, String)],
    /// Server-side subscriptions that the client had before, and where it stands in each.
    pub subs: &'a [(&'a str, Since<'a>)],
}

/// The fields of a subscribe command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscribe<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Subscription token (JWT); empty for none.
    pub token: &'a str,
    /// Raw JSON for the backend; empty for none.
    pub data: &'a [u8],
    /// Where the client stopped, if it wants what it missed.
    pub recover: Option<Since<'a>>,
    /// Ask for a positioned subscription.
    pub positioned: bool,
    /// Ask for a recoverable subscription.
    pub recoverable: bool,
    /// Ask for join and leave pushes.
    pub join_leave: bool,
    /// Offer differences ([`resolve`](super::resolve)).
    pub delta: bool,
    /// Which publications are wanted, by their tags.
    pub tags_filter: Option<&'a Node>,
    /// Ask for error 112 rather than `recovered: false`.
    pub reject_unrecovered: bool,
}

/// Where a client stopped. The epoch is the server's very text, whatever its form; empty if none is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Since<'a> {
    /// Number of the last publication that was seen; 0 if none was.
    pub offset: u64,
    /// Identity of the numbering.
    pub epoch: &'a str,
}

/// Writes the command `id`, without a line feed.
pub fn encode_command(id: u32, command: &Command<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    if !matches!(command, Command::Send { .. }) {
        write_number_member("id", id.into(), out);
    }
    write_key(name(command), out);
    out.push(b'{');
    match *command {
        Command::Connect(connect) => write_connect(connect, out),
        Command::Subscribe(subscribe) => write_subscribe(subscribe, out),
        Command::Unsubscribe { channel }
        | Command::Presence { channel }
        | Command::PresenceStats { channel } => {
            write_text_member("channel", channel, out);
        }
        Command::Publish { channel, data } => {
            write_text_member("channel", channel, out);
            write_payload_member("data", data, out);
        }
        Command::History { channel, limit, since, reverse } => {
            write_text_member("channel", channel, out);
            write_integer_member("limit", limit, out);
            if let Some(since) = since {
                write_key("since", out);
                out.push(b'{');
                write_since(since, out);
                out.push(b'}');
            }
            write_flag_member("reverse", reverse, out);
        }
        Command::Rpc { method, data } => {
            write_text_member("method", method, out);
            write_payload_member("data", data, out);
        }
        Command::Send { data } => write_payload_member("data", data, out),
        Command::Refresh { token } => write_text_member("token", token, out),
        Command::SubRefresh { channel, token } => {
            write_text_member("channel", channel, out);
            write_text_member("token", token, out);
        }
    }
    out.extend_from_slice(b"}}");
}

/// Writes what goes beside a stream: commands, joined by line feeds, in a string.
pub fn encode_emulation(request: &EmulationRequest, out: &mut Vec<u8>) {
    out.push(b'{');
    write_text_member("session", &request.session, out);
    write_text_member("node", &request.node, out);
    write_text_member("data", &String::from_utf8_lossy(&request.data), out);
    out.push(b'}');
}

fn name(command: &Command<'_>) -> &'static str {
    match command {
        Command::Connect(_) => "connect",
        Command::Subscribe(_) => "subscribe",
        Command::Unsubscribe { .. } => "unsubscribe",
        Command::Publish { .. } => "publish",
        Command::Presence { .. } => "presence",
        Command::PresenceStats { .. } => "presence_stats",
        Command::History { .. } => "history",
        Command::Rpc { .. } => "rpc",
        Command::Send { .. } => "send",
        Command::Refresh { .. } => "refresh",
        Command::SubRefresh { .. } => "sub_refresh",
    }
}

fn write_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    write_text_member("token", connect.token, out);
    write_payload_member("data", connect.data, out);
    if !connect.subs.is_empty() {
        write_key("subs", out);
        write_map(connect.subs, out, |(channel, since), out| {
            write_string(channel, out);
            out.extend_from_slice(b":{");
            write_flag_member("recover", true, out);
            write_since(*since, out);
            out.push(b'}');
        });
    }
    write_text_member("name", connect.name, out);
    write_text_member("version", connect.version, out);
    if !connect.headers.is_empty() {
        write_key("headers", out);
        write_map(connect.headers, out, |(name, value), out| {
            write_string(name, out);
            out.push(b':');
            write_string(value, out);
        });
    }
}

fn write_subscribe(subscribe: &Subscribe<'_>, out: &mut Vec<u8>) {
    write_text_member("channel", subscribe.channel, out);
    write_text_member("token", subscribe.token, out);
    write_payload_member("data", subscribe.data, out);
    if let Some(since) = subscribe.recover {
        write_flag_member("recover", true, out);
        write_since(since, out);
    }
    write_flag_member("positioned", subscribe.positioned, out);
    write_flag_member("recoverable", subscribe.recoverable, out);
    write_flag_member("join_leave", subscribe.join_leave, out);
    if subscribe.delta {
        write_text_member("delta", "fossil", out);
    }
    if let Some(filter) = subscribe.tags_filter {
        write_key("tf", out);
        write_filter(filter, out);
    }
    if subscribe.reject_unrecovered {
        write_number_member("flag", REJECT_UNRECOVERED.unsigned_abs(), out);
    }
}

fn write_since(since: Since<'_>, out: &mut Vec<u8>) {
    write_number_member("offset", since.offset, out);
    write_text_member("epoch", since.epoch, out);
}

fn write_filter(node: &Node, out: &mut Vec<u8>) {
    out.push(b'{');
    write_text_member("op", &node.op, out);
    write_text_member("key", &node.key, out);
    write_text_member("cmp", &node.cmp, out);
    write_text_member("val", &node.val, out);
    if !node.vals.is_empty() {
        write_key("vals", out);
        write_list(&node.vals, out, |value, out| write_string(value, out));
    }
    if !node.nodes.is_empty() {
        write_key("nodes", out);
        write_list(&node.nodes, out, write_filter);
    }
    out.push(b'}');
}

fn write_list<T>(entries: &[T], out: &mut Vec<u8>, mut write_entry: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_entry(entry, out);
    }
    out.push(b']');
}

fn write_text_member(name: &'static str, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        write_key(name, out);
        write_string(text, out);
    }
}

fn write_integer_member(name: &'static str, number: i32, out: &mut Vec<u8>) {
    if number != 0 {
        write_key(name, out);
        if number < 0 {
            out.push(b'-');
        }
        write_number(number.unsigned_abs().into(), out);
    }
}
