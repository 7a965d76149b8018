//! Promises of `websocket::handshake`, both halves.
//!
//! What the server accepts is a GET of HTTP/1.1 with one key and version 13, and the client that sent that key
//! takes the answer. What it refuses gets a whole response that says so. A client's request is one head,
//! whatever its parts hold. No answer passes without the proof that the key was read.

use crate::input::Input;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longwire_protocol::http::{AllowedOrigins, Body, RequestHead, parse_request_head, parse_response_head};
use longwire_protocol::websocket::handshake::{ClientRequest, Options, accept, is_upgrade};

const SUBPROTOCOLS: &[&str] = &["centrifuge-json", "a"];
const MAX_BYTES: usize = 16_384;
const MAX_HEADERS: usize = 100;

/// Decides whose turn it is with its first byte; the rest is what the other side sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.byte();
    let lists = [&[][..], &["http://a.example", "null"][..]];
    let allowed_origins =
        AllowedOrigins::parse(lists[usize::from(choices >> 4) % 2]).expect("both lists hold origins");
    let options = Options {
        allowed_origins: &allowed_origins,
        subprotocols: if choices & 8 == 0 { SUBPROTOCOLS } else { &[] },
        allow_deflate: choices & 4 == 0,
    };
    match choices % 3 {
        0 => {
            if let Ok(Some((head, _))) = parse_request_head(input.rest(), MAX_BYTES, MAX_HEADERS) {
                server(&head, &options);
            }
        }
        1 => client(input, &options),
        _ => answer(input),
    }
}

fn server(head: &RequestHead<'_>, options: &Options<'_>) {
    match accept(head, options) {
        Ok(accepted) => {
            assert!(is_upgrade(head) && head.method == "GET" && head.is_http_11 && head.body == Body::Empty);
            assert!(options.allowed_origins.allow(head));
            assert!(options.allow_deflate || !accepted.deflate);
            let (answer, consumed) = parse_response_head(&accepted.response, MAX_BYTES, MAX_HEADERS)
                .expect("a server's own answer is well-formed")
                .expect("a server's own answer is whole");
            assert_eq!((answer.status, consumed), (101, accepted.response.len()));
            let extensions = answer.headers.all("sec-websocket-extensions").count();
            assert_eq!(extensions, usize::from(accepted.deflate));
            if let Some(chosen) = accepted.subprotocol {
                let mut asked = head.headers.list("sec-websocket-protocol");
                assert!(asked.any(|name| name == chosen.as_bytes()), "nobody asked for {chosen}");
            }

            let key = head.headers.first("sec-websocket-key").unwrap_or_default();
            let Ok(Ok(key)) = STANDARD.decode(key).map(<[u8; 16]>::try_from) else { return };
            let request = ClientRequest {
                host: "a",
                target: "/",
                key,
                origin: None,
                subprotocols: SUBPROTOCOLS,
                offer_deflate: true,
                headers: &[],
            };
            let agreement = request.verify(&answer).expect("the client that sent the key takes the answer");
            assert_eq!(agreement.deflate, accepted.deflate);
            assert_eq!(agreement.subprotocol, accepted.subprotocol);
        }
        Err(refusal) => {
            let response = refusal.response();
            let (answer, consumed) = parse_response_head(&response, MAX_BYTES, MAX_HEADERS)
                .expect("a refusal is well-formed")
                .expect("a refusal is whole");
            assert!(matches!(answer.status, 400 | 403 | 405 | 426), "{}", answer.status);
            let length = answer.headers.first_str("content-length").and_then(|text| text.parse().ok());
            assert_eq!(length, Some(response.len() - consumed), "the length of a refusal's body");
        }
    }
}

/// A client's request made of arbitrary parts: refused here, or one head that the server judges.
fn client(mut input: Input<'_>, options: &Options<'_>) {
    let has_origin = input.flag();
    let offer_deflate = input.flag();
    let key: [u8; 16] = std::array::from_fn(|_| input.byte());
    let [host, target, origin, subprotocol, name, value] = std::array::from_fn(|_| input.text(300));
    let target = format!("/{target}");
    let request = ClientRequest {
        host: &host,
        target: &target,
        key,
        origin: has_origin.then_some(&origin[..]),
        subprotocols: &[&subprotocol[..], "centrifuge-json"][usize::from(subprotocol.is_empty())..],
        offer_deflate,
        headers: &[(&name[..], &value[..])][usize::from(name.is_empty())..],
    };
    let Ok(bytes) = request.encode() else { return };
    match parse_request_head(&bytes, usize::MAX, MAX_HEADERS) {
        Ok(Some((head, consumed))) => {
            assert_eq!(consumed, bytes.len(), "something stands behind the head");
            let headers = 5 + usize::from(has_origin) + 1 + usize::from(offer_deflate);
            assert_eq!(head.headers.iter().count(), headers + request.headers.len(), "a header too many");
            assert_eq!(head.target, target);
            server(&head, options);
            // A header of the caller's may stand in the way of the handshake's own.
            if name.is_empty() && !has_origin {
                let accepted = accept(&head, options).expect("a plain request is accepted");
                let (answer, _) = parse_response_head(&accepted.response, MAX_BYTES, MAX_HEADERS)
                    .expect("a server's own answer is well-formed")
                    .expect("a server's own answer is whole");
                let agreement = request.verify(&answer).expect("both halves understand each other");
                assert_eq!(agreement.deflate, offer_deflate && options.allow_deflate);
            }
        }
        Ok(None) => panic!("a request without an end"),
        // Such as a host that is none, or a second length among the caller's own headers.
        Err(error) => assert_eq!(error.status, 400, "{error}"),
    }
}

/// Arbitrary bytes as the server's answer.
fn answer(mut input: Input<'_>) {
    let offer_deflate = input.flag();
    // The key of RFC 6455 section 1.3.
    let key = *b"the sample nonce";
    let request = ClientRequest {
        host: "a",
        target: "/",
        key,
        origin: None,
        subprotocols: SUBPROTOCOLS,
        offer_deflate,
        headers: &[],
    };
    let Ok(Some((head, _))) = parse_response_head(input.rest(), MAX_BYTES, MAX_HEADERS) else { return };
    if let Ok(agreement) = request.verify(&head) {
        assert_eq!(head.status, 101);
        assert_eq!(head.headers.first("sec-websocket-accept"), Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
        assert!(offer_deflate || !agreement.deflate, "compression that was not offered");
        let chosen = head.headers.first("sec-websocket-protocol");
        assert_eq!(chosen, agreement.subprotocol.map(str::as_bytes));
    }
}
