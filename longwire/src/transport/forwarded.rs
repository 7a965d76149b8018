//! The address of a client behind proxies that are trusted.
//!
//! `X-Forwarded-For` and `Forwarded` (RFC 7239) are lists to which each proxy adds whom it was asked by. They
//! are believed from the right, as long as the one who added the entry is trusted: everything to the left of
//! an untrusted address may be forged. So may be a whole list that the proxy does not know and hands on: of two that
//! disagree the first counts, and its address does not prove that somebody is on this machine. What is not believed says
//! one thing all the same: that somebody else asks.

use longwire_protocol::http::RequestHead;
use std::net::IpAddr;

/// The address of the client that `peer` speaks for: `peer` itself unless it is a trusted proxy.
pub fn client_address(head: &RequestHead<'_>, peer: IpAddr, trusted: &[IpAddr]) -> IpAddr {
    follow(head, peer, trusted).0
}

/// Whether `peer` speaks for a client whose address [`client_address`] could not find out.
pub fn is_hidden(head: &RequestHead<'_>, peer: IpAddr, trusted: &[IpAddr]) -> bool {
    follow(head, peer, trusted).1
}

/// How far the headers are believed, and whether they go on from there.
fn follow(head: &RequestHead<'_>, peer: IpAddr, trusted: &[IpAddr]) -> (IpAddr, bool) {
    if !is_trusted(peer, trusted) {
        let names = ["forwarded", "x-forwarded-for", "x-real-ip"];
        return (peer, names.iter().any(|name| head.headers.first(name).is_some()));
    }
    let listed = walk(head.headers.list("x-forwarded-for").map(address), peer, trusted);
    let forwarded = walk(head.headers.list("forwarded").map(forwarded_for), peer, trusted);
    let real = head.headers.first("x-real-ip").map(address);
    let (client, is_hidden) = match (listed, forwarded) {
        // Most proxies write the first alone, and hand on what their client put into the other.
        (Some(listed), Some(forwarded)) => (listed.0, listed.1 || listed != forwarded),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => return (peer, real.is_some()),
    };
    // A proxy that writes only this one hands on both.
    let is_other =
        |real: Option<IpAddr>| real.is_none_or(|real| real != client && !is_trusted(real, trusted));
    (client, is_hidden || real.is_some_and(is_other))
}

/// How far one list is believed, and whether it goes on from there; `None` if it has no entries.
fn walk(
    entries: impl Iterator<Item = Option<IpAddr>>,
    peer: IpAddr,
    trusted: &[IpAddr],
) -> Option<(IpAddr, bool)> {
    let entries: Vec<Option<IpAddr>> = entries.collect();
    let mut client = None;
    for entry in entries.into_iter().rev() {
        // What cannot be read (`unknown`, an obfuscated name) hides everything to its left.
        let Some(address) = entry else { return Some((client.unwrap_or(peer), true)) };
        client = Some(address);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    Some((client?, false))
}

/// Whether an address is one of the proxies that are believed.
pub fn is_trusted(address: IpAddr, trusted: &[IpAddr]) -> bool {
    trusted.iter().any(|proxy| proxy.to_canonical() == address.to_canonical())
}

/// The `for` parameter of one element of a `Forwarded` header.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let element = std::str::from_utf8(element).ok()?;
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"').as_bytes()))?
    })
}

/// An address with or without a port, with or without brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    text.parse().ok().or_else(|| text.rsplit_once(':')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::http::parse_request_head;

    fn address_of(headers: &str, peer: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let (head, _) = parse_request_head(request.as_bytes(), 4096, 50).unwrap().unwrap();
        let trusted = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        client_address(&head, peer.parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_from_the_right() {
        let cases = [
            ("X-Forwarded-For: 1.1.1.1\r\n", "9.9.9.9", "9.9.9.9"),
            ("", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2\r\n", "10.0.0.1", "1.1.1.1"),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1", "1.1.1.1"),
            ("X-Forwarded-For: 1.1.1.1, unknown\r\n", "10.0.0.1", "10.0.0.1"),
            ("Forwarded: for=1.1.1.1;proto=https\r\n", "10.0.0.1", "1.1.1.1"),
            ("Forwarded: For=\"[2001:db8::7]:4711\", for=10.0.0.2:80\r\n", "10.0.0.1", "2001:db8::7"),
            ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1", "1.1.1.1"),
            ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: unknown\r\n", "10.0.0.1", "10.0.0.1"),
        ];
        for (headers, peer, expected) in cases {
            assert_eq!(address_of(headers, peer), expected, "{headers:?} from {peer}");
        }
    }

    #[test]
    fn who_speaks_for_somebody_unknown_is_seen() {
        let cases = [
            ("", "127.0.0.1", false),
            ("X-Forwarded-For: 1.1.1.1\r\n", "127.0.0.1", true),
            ("Forwarded: for=127.0.0.1\r\n", "127.0.0.1", true),
            ("X-Real-IP: 1.1.1.1\r\n", "127.0.0.1", true),
            ("X-Forwarded-For: 127.0.0.1\r\n", "10.0.0.1", false),
            ("X-Forwarded-For: 127.0.0.1, unknown\r\n", "10.0.0.1", true),
            ("Forwarded: for=_hidden\r\n", "10.0.0.1", true),
            ("Forwarded: for=127.0.0.1\r\nX-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1", true),
            ("Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 127.0.0.1\r\n", "10.0.0.1", true),
            ("Forwarded: for=127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\n", "10.0.0.1", false),
            ("X-Real-IP: 1.1.1.1\r\n", "10.0.0.1", true),
            ("X-Real-IP: 1.1.1.1\r\nForwarded: for=127.0.0.1\r\n", "10.0.0.1", true),
            ("X-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\n", "10.0.0.1", false),
            ("X-Real-IP: 10.0.0.1\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.1\r\n", "10.0.0.1", false),
            ("", "10.0.0.1", false),
        ];
        for (headers, peer, expected) in cases {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            let (head, _) = parse_request_head(request.as_bytes(), 4096, 50).unwrap().unwrap();
            let trusted = ["10.0.0.1".parse().unwrap()];
            assert_eq!(
                is_hidden(&head, peer.parse().unwrap(), &trusted),
                expected,
                "{headers:?} from {peer}"
            );
        }
    }
}
