//! What the simulated network promises, each promise by itself, and then all of them under chance.

mod closing;
mod connecting;
mod faults;
mod hosts;
mod streams;
mod whole;

use super::*;
use longwire::env::net::{Listen, Network};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2));
const ADDRESS: SocketAddr = SocketAddr::new(SERVER, 8000);
const USER_TIMEOUT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

/// A connection with both of its ends.
struct Pair {
    net: Net,
    listener: Box<dyn Listen>,
    client: Dialled,
    server: Dialled,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn listen(net: &Net) -> Box<dyn Listen> {
    net.host(SERVER).listen(ADDRESS, USER_TIMEOUT).expect("the address is free")
}

/// The next connection of the listener, in the clothes of a dialled one.
async fn accept(net: &Net, listener: &dyn Listen) -> Dialled {
    let (socket, peer) = poll_fn(|cx| listener.poll_accept(cx)).await.expect("accepting does not fail");
    let id = net.connection_from(peer).expect("it was dialled");
    Dialled { socket, local: peer, id }
}

async fn pair_on(net: Net) -> Pair {
    let listener = listen(&net);
    let client = net.connect(CLIENT, ADDRESS, seconds(10)).await.expect("somebody listens");
    let server = accept(&net, &*listener).await;
    assert_eq!(client.id, server.id);
    Pair { net, listener, client, server }
}

async fn pair() -> Pair {
    pair_on(Net::new(Rng::from_seed(1))).await
}

/// Bytes of which any two stretches differ.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Reads up to the end or the error.
async fn read_out(socket: &mut Dialled) -> (Vec<u8>, io::Result<usize>) {
    let (mut all, mut scratch) = (Vec::new(), [0; 4096]);
    loop {
        match timeout(10 * HOUR, socket.read(&mut scratch)).await.expect("an end comes") {
            Ok(count) if count > 0 => all.extend_from_slice(&scratch[..count]),
            end => return (all, end),
        }
    }
}

/// Reads exactly so many bytes.
async fn read_exactly(socket: &mut Dialled, count: usize) -> Vec<u8> {
    let mut all = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let read = timeout(10 * HOUR, socket.read(&mut all[filled..])).await.expect("something comes");
        let read = read.expect("the bytes come");
        assert!(read > 0, "the end came after {filled} of {count} bytes");
        filled += read;
    }
    all
}

/// Writes until nothing fits any more; how much did.
fn fill(socket: &Dialled) -> usize {
    let (chunk, mut total) = (pattern(1000), 0);
    loop {
        match socket.socket.try_write_vectored(&[io::IoSlice::new(&chunk)]) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return total;
            }
        }
    }
}

fn write_now(socket: &Dialled, bytes: &[u8]) -> io::Result<usize> {
    socket.socket.try_write_vectored(&[io::IoSlice::new(bytes)])
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.expect_err("it fails").kind()
}

async fn writable(socket: &Dialled) {
    poll_fn(|cx| socket.socket.poll_write_ready(cx)).await.expect("readiness is no error");
}
