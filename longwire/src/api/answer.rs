//! What a backend is answered: results, errors and their JSON.
//!
//! An application error is a 200 with an `error` member, because clients of this API (phpcent among them)
//! take any other status for a broken server; a caller may ask for HTTP statuses by a header. Members that
//! hold their type's default are left out, except those that clients read without looking first. What must
//! stay true: the shapes are exactly those of Centrifugo's server API.

use super::queues::Refusal;
use crate::node::survey::Reach;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longwire_protocol::json::{write_number, write_payload, write_string};
use longwire_protocol::message::{ClientId, ClientInfo};
use longwire_protocol::{ErrorCode, Position, Publication};
use std::sync::Arc;

/// What a call of the API comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It was done; the JSON of the result.
    Result(Vec<u8>),
    /// The answers of a batch, as a JSON list.
    Replies(Vec<u8>),
    /// It was refused, with the code's own text.
    Error(ErrorCode),
    /// It was refused, in words.
    Refused(Refusal),
    /// The body is not what the method takes; what is wrong with it, and where.
    Malformed(String),
    /// There is no such method.
    NoSuchMethod,
}

impl Answer {
    /// The status and, unless there is nothing but a text to say, the JSON of the answer.
    ///
    /// With `errors_as_status` an application error becomes an HTTP status with the bare error as its body.
    pub fn render(self, errors_as_status: bool) -> Rendered {
        let mut body = Vec::new();
        match self {
            Answer::Result(result) => {
                write_member("result", &result, &mut body);
                Rendered::Json(200, body)
            }
            Answer::Replies(replies) => {
                write_member("replies", &replies, &mut body);
                Rendered::Json(200, body)
            }
            Answer::Error(code) => Answer::Refused(code.into()).render(errors_as_status),
            Answer::Refused(refusal) if errors_as_status => {
                write_refusal(&refusal, &mut body);
                Rendered::Json(http_status(refusal.code), body)
            }
            Answer::Refused(refusal) => {
                write_error(&refusal, &mut body);
                Rendered::Json(200, body)
            }
            Answer::Malformed(what) => Rendered::Text(400, format!("Bad Request: {what}\n")),
            Answer::NoSuchMethod => Rendered::Text(404, "Not Found: there is no such method\n".to_owned()),
        }
    }
}

/// An answer on its way to become an HTTP response.
#[derive(Clone, Debug, PartialEq)]
pub enum Rendered {
    /// Status and JSON.
    Json(u16, Vec<u8>),
    /// Status and a text for people.
    Text(u16, String),
}

/// Writes `{"name":json}`.
pub(super) fn write_member(name: &str, json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(json);
    out.push(b'}');
}

/// Writes `{"error":{...}}`.
pub(super) fn write_error(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":");
    write_refusal(refusal, out);
    out.push(b'}');
}

/// Writes a code and its text.
pub(super) fn write_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    write_number(refusal.code.code().into(), out);
    out.extend_from_slice(b",\"message\":");
    write_string(&refusal.message, out);
    out.push(b'}');
}

/// The result of a publish: empty without a position. With a report, how far it came on this node.
pub(super) fn published(position: Option<Position>, report: Option<(ClientId, Reach)>) -> Vec<u8> {
    let mut out = vec![b'{'];
    if let Some(position) = position {
        write_position(position, &mut out);
    }
    if let Some((node, Reach { subscribers, reached })) = report {
        if position.is_some() {
            out.push(b',');
        }
        let text = format!(
            "\"report\":{{\"reached\":{reached},\"nodes\":[{{\"uid\":\"{node}\",\"subscribers\":{subscribers},\
             \"reached\":{reached}}}]}}"
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'}');
    out
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"offset\":");
    write_number(position.offset, out);
    out.extend_from_slice(b",\"epoch\":");
    write_string(position.epoch.as_str(), out);
}

/// The result of a presence call.
pub(super) fn presence(members: &[Arc<ClientInfo>]) -> Vec<u8> {
    let mut out = b"{\"presence\":{".to_vec();
    for (i, info) in members.iter().enumerate() {
        separate(i, &mut out);
        write_string(&info.client.to_string(), &mut out);
        out.push(b':');
        write_client_info(info, &mut out);
    }
    out.extend_from_slice(b"}}");
    out
}

/// The result of a history call.
pub(super) fn history(publications: &[Arc<Publication>], top: Position) -> Vec<u8> {
    let mut out = b"{\"publications\":[".to_vec();
    for (i, publication) in publications.iter().enumerate() {
        separate(i, &mut out);
        write_publication(publication, &mut out);
    }
    out.extend_from_slice(b"],\"epoch\":");
    write_string(top.epoch.as_str(), &mut out);
    out.extend_from_slice(b",\"offset\":");
    write_number(top.offset, &mut out);
    out.push(b'}');
    out
}

/// The result of a channels call.
pub(super) fn channels<'a>(counts: impl Iterator<Item = (&'a str, usize)>) -> Vec<u8> {
    let mut out = b"{\"channels\":{".to_vec();
    for (i, (channel, count)) in counts.enumerate() {
        separate(i, &mut out);
        write_string(channel, &mut out);
        out.extend_from_slice(b":{\"num_clients\":");
        write_number(count as u64, &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
    out
}

/// Writes a comma before every element but the first.
pub(super) fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_publication(publication: &Publication, out: &mut Vec<u8>) {
    if publication.is_json {
        out.extend_from_slice(b"{\"data\":");
        write_payload(&publication.data, out);
    } else {
        out.extend_from_slice(b"{\"b64data\":");
        write_string(&STANDARD.encode(&publication.data), out);
    }
    if let Some(info) = &publication.info {
        out.extend_from_slice(b",\"info\":");
        write_client_info(info, out);
    }
    out.extend_from_slice(b",\"offset\":");
    write_number(publication.offset, out);
    if !publication.tags.is_empty() {
        out.extend_from_slice(b",\"tags\":{");
        for (i, (key, value)) in publication.tags.iter().enumerate() {
            separate(i, out);
            write_string(key, out);
            out.push(b':');
            write_string(value, out);
        }
        out.push(b'}');
    }
    out.push(b'}');
}

fn write_client_info(info: &ClientInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"user\":");
    write_string(&info.user, out);
    out.extend_from_slice(b",\"client\":");
    write_string(&info.client.to_string(), out);
    for (member, json) in [("conn_info", &info.conn_info), ("chan_info", &info.chan_info)] {
        if !json.is_empty() {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(b"\":");
            write_payload(json, out);
        }
    }
    out.push(b'}');
}

/// The status for callers that asked for statuses.
fn http_status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::UnknownChannel | ErrorCode::MethodNotFound | ErrorCode::NotFound => 404,
        ErrorCode::BadRequest | ErrorCode::NotAvailable => 400,
        ErrorCode::UnrecoverablePosition => 416,
        _ => 500,
    }
}
