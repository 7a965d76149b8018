//! Names with several addresses, over the loopback interface.

use super::*;
use socket2::{Domain, Socket as RawSocket, Type};

/// A listener whose queue is full: it answers nobody, as an address that swallows packets does.
fn silent() -> (RawSocket, SocketAddr, Vec<std::net::TcpStream>) {
    let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..16 {
        match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => return (socket, address, waiting),
        }
    }
    panic!("the queue of a listener has no end");
}

#[tokio::test]
async fn an_address_that_answers_nobody_costs_a_head_start_and_no_more() {
    let (_socket, silent, _waiting) = silent();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let begun = std::time::Instant::now();
    let stream = connect(&[silent, good]).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_that_refuses_has_no_head_start_and_only_the_last_failure_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(connect(&[refusing, refusing]).await.unwrap_err(), Cause::Refused);
    let (_socket, silent, _waiting) = silent();
    let both = tokio::time::timeout(Duration::from_secs(1), connect(&[refusing, silent])).await;
    assert!(both.is_err(), "one is still tried");
}

#[test]
fn families_take_turns_in_the_order_of_the_resolver() {
    let addresses =
        ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"].map(|text| text.parse().unwrap());
    let expected =
        ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(|text| text.parse().unwrap());
    assert_eq!(in_turn(&addresses), expected);
    assert_eq!(in_turn(&[]), []);
}
