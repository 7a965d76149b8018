//! A TCP proxy that breaks what goes through it, in one named way at a time.
//!
//! It stands between client and server and copies bytes until a fault is ordered: a [`Fault`] of the connections that
//! exist, or [`Proxy::refuse`] for those to come. It has a runtime and a thread of its own, so that a test that blocks
//! does not hold it up. It knows no protocol: a frame is cut because half of what was read is passed on. What must
//! stay true: a fault does what its name says and nothing more (the tests below look at it from outside), and what it
//! holds back is not lost, so that it can go on later.

use crate::harness::{free_port, until};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long something to cut is waited for: longer than two beats.
const CUT_LIMIT: Duration = Duration::from_millis(2500);

/// What is done to the connections that exist. Those that are made later are whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Both ends get a reset.
    Reset,
    /// Both ends get an orderly end.
    Close,
    /// What the server says next is cut in its middle, then both ends get an orderly end; only that if it says nothing
    /// for a while.
    CutDown,
    /// The same with what the client says next.
    CutUp,
    /// Nothing is taken from either end and nothing passed on, and nobody is told.
    Vanish,
    /// The same for what the server says; what the client says still arrives.
    HoldDown,
    /// The same for what the client says; what the server says still arrives.
    HoldUp,
}

/// What one connection is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Pass,
    Break(Fault),
}

/// What one connection was told, and what it has heard of that.
struct Reins {
    order: watch::Sender<Order>,
    heeded: watch::Receiver<Order>,
}

/// The proxy; its connections are reset when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
    runtime: Option<Runtime>,
}

struct Control {
    server: SocketAddr,
    links: Mutex<BTreeMap<u64, Reins>>,
    /// What connections to come begin with.
    beginning: Mutex<Order>,
    is_open: watch::Sender<bool>,
}

impl Proxy {
    /// Stands before `server`.
    pub(crate) fn start(server: SocketAddr) -> Proxy {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let control = Arc::new(Control {
            server,
            links: Mutex::default(),
            beginning: Mutex::new(Order::Pass),
            is_open: watch::Sender::new(true),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(listen(address, control.clone()));
        let proxy = Proxy { address, control, runtime: Some(runtime) };
        proxy.await_listening(true);
        proxy
    }

    /// Where a client connects.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does something to every connection that exists.
    pub(crate) fn inflict(&self, fault: Fault) {
        self.order(Order::Break(fault));
    }

    /// Holds what clients say, as [`Fault::HoldUp`], and returns when no byte goes up any more.
    pub(crate) fn hold_up(&self) {
        self.inflict(Fault::HoldUp);
        until("connections to heed the proxy", || {
            let links = self.control.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.values().all(|reins| *reins.heeded.borrow() == *reins.order.borrow())
        });
    }

    /// Lets those that are held back go on.
    pub(crate) fn resume(&self) {
        self.order(Order::Pass);
    }

    /// Does something to every connection to come, from its first byte on.
    pub(crate) fn inflict_on_new(&self, fault: Fault) {
        *self.control.beginning.lock().unwrap_or_else(PoisonError::into_inner) = Order::Break(fault);
    }

    /// Listens no more: whoever dials is refused. What is connected stays.
    pub(crate) fn refuse(&self) {
        self.control.is_open.send_replace(false);
        self.await_listening(false);
    }

    /// Listens again.
    pub(crate) fn accept(&self) {
        self.control.is_open.send_replace(true);
        self.await_listening(true);
    }

    fn order(&self, order: Order) {
        let links = self.control.links.lock().unwrap_or_else(PoisonError::into_inner);
        for reins in links.values() {
            // What was torn stays torn; an error means that the connection has ended.
            reins.order.send_if_modified(|held| {
                let is_final =
                    matches!(held, Order::Break(Fault::Reset | Fault::Close | Fault::CutDown | Fault::CutUp));
                if is_final || *held == order {
                    return false;
                }
                *held = order;
                true
            });
        }
    }

    fn await_listening(&self, is_listening: bool) {
        until("the proxy's listener", || {
            // A connection that is made only to look is one more that is passed on; the server sees it come and go.
            std::net::TcpStream::connect(self.address).is_ok() == is_listening
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Accepts while the proxy is open.
async fn listen(address: SocketAddr, control: Arc<Control>) {
    let mut is_open = control.is_open.subscribe();
    let mut count = 0;
    loop {
        if is_open.wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        // Somebody may hold the port for a moment; who waits for the listener has a limit.
        let Ok(listener) = TcpListener::bind(address).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        loop {
            let accepted = tokio::select! {
                biased;
                closed = is_open.wait_for(|is_open| !*is_open) => match closed {
                    Ok(_) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => accepted,
            };
            let Ok((client, _)) = accepted else { continue };
            count += 1;
            let beginning = *control.beginning.lock().unwrap_or_else(PoisonError::into_inner);
            let (order, orders) = watch::channel(beginning);
            let (heeding, heeded) = watch::channel(beginning);
            let reins = Reins { order, heeded };
            control.links.lock().unwrap_or_else(PoisonError::into_inner).insert(count, reins);
            let (control, number) = (control.clone(), count);
            tokio::spawn(async move {
                link(client, control.server, orders, heeding).await;
                control.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            });
        }
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// Read, and not passed on yet.
    waiting: Vec<u8>,
    has_ended: bool,
    /// Half of a frame is what is left to pass on; then it is over.
    is_cut: bool,
}

/// What became of a step.
enum Step {
    More,
    /// The cut is made.
    Cut,
    /// It broke where it reads.
    FromBroke,
    /// It broke where it writes.
    ToBroke,
}

impl Pipe {
    /// Reads something or writes something. May be given up at any time.
    async fn step(&mut self, from: &TcpStream, to: &TcpStream, cuts: bool) -> Step {
        if self.waiting.is_empty() {
            let mut buffer = [0; 16 * 1024];
            if from.readable().await.is_err() {
                return Step::FromBroke;
            }
            match from.try_read(&mut buffer) {
                Ok(0) => {
                    self.has_ended = true;
                    // The other end may be gone already.
                    let _ = SockRef::from(to).shutdown(Shutdown::Write);
                }
                Ok(len) => {
                    self.is_cut = cuts && len > 1;
                    let kept = if self.is_cut { len / 2 } else { len };
                    self.waiting.extend_from_slice(&buffer[..kept]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Step::FromBroke,
            }
            return Step::More;
        }
        if to.writable().await.is_err() {
            return Step::ToBroke;
        }
        match to.try_write(&self.waiting) {
            Ok(len) => drop(self.waiting.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Step::ToBroke,
        }
        if self.is_cut && self.waiting.is_empty() { Step::Cut } else { Step::More }
    }
}

/// One connection, until both directions have ended or a fault ends it.
async fn link(
    client: TcpStream,
    server: SocketAddr,
    mut orders: watch::Receiver<Order>,
    heeding: watch::Sender<Order>,
) {
    let Ok(server) = TcpStream::connect(server).await else {
        reset(client);
        return;
    };
    for socket in [&client, &server] {
        // What is passed on is passed on as it came.
        let _ = socket.set_nodelay(true);
    }
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    let mut cut_at = None;
    while !(up.has_ended && down.has_ended) {
        let order = *orders.borrow_and_update();
        heeding.send_replace(order);
        let (passes_up, passes_down) = match order {
            Order::Break(Fault::Reset) => break,
            Order::Break(Fault::Close) => return end(client, server).await,
            Order::Break(Fault::Vanish) => (false, false),
            Order::Break(Fault::HoldUp) => (false, true),
            Order::Break(Fault::HoldDown) => (true, false),
            Order::Pass | Order::Break(Fault::CutUp | Fault::CutDown) => (true, true),
        };
        let (cuts_up, cuts_down) =
            (order == Order::Break(Fault::CutUp), order == Order::Break(Fault::CutDown));
        let waits_for_cut = cuts_up || cuts_down;
        if waits_for_cut {
            cut_at.get_or_insert_with(|| Instant::now() + CUT_LIMIT);
        }
        let step = tokio::select! {
            biased;
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            step = up.step(&client, &server, cuts_up), if passes_up && !up.has_ended => step,
            step = down.step(&server, &client, cuts_down), if passes_down && !down.has_ended => step,
            () = tokio::time::sleep_until(cut_at.unwrap_or_else(Instant::now)), if waits_for_cut => Step::Cut,
        };
        match step {
            Step::More => {}
            Step::Cut => return end(client, server).await,
            // The way back is held: that the far end broke is not told, and what goes there is heard by nobody.
            Step::ToBroke if passes_up != passes_down => {
                let speaker = if passes_up { &client } else { &server };
                tokio::select! {
                    biased;
                    _ = orders.changed() => {}
                    () = empty(speaker) => {}
                }
                break;
            }
            Step::FromBroke | Step::ToBroke => break,
        }
    }
    if !(up.has_ended && down.has_ended) {
        reset(client);
        reset(server);
    }
}

/// Closes with a reset.
fn reset(socket: TcpStream) {
    // An error means that it is gone.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Closes both in an orderly way: unread bytes would make a reset of it, so they are read first.
async fn end(client: TcpStream, server: TcpStream) {
    for socket in [&client, &server] {
        let _ = SockRef::from(socket).shutdown(Shutdown::Write);
    }
    let emptied = async {
        tokio::join!(empty(&client), empty(&server));
    };
    // An end that never answers is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(5), emptied).await;
}

async fn empty(socket: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::thread;

    /// A server that says everything twice over; where it listens.
    fn doubling() -> SocketAddr {
        let listener = StdListener::bind("127.0.0.1:0").expect("loopback works");
        let address = listener.local_addr().expect("loopback works");
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let (mut from, mut to) = (&socket, &socket);
                    let mut buffer = [0; 1024];
                    while let Ok(len @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&[&buffer[..len], &buffer[..len]].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn through(proxy: &Proxy) -> StdStream {
        let mut client = StdStream::connect(proxy.address()).expect("loopback works");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("loopback works");
        client.write_all(b"ab").expect("loopback works");
        let mut answer = [0; 4];
        client.read_exact(&mut answer).expect("loopback works");
        assert_eq!(&answer, b"abab");
        client
    }

    fn hears_nothing(client: &mut StdStream) -> bool {
        client.set_read_timeout(Some(Duration::from_millis(200))).expect("loopback works");
        let result = client.read(&mut [0; 16]);
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("loopback works");
        result.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    #[test]
    fn a_reset_and_an_orderly_end_are_what_they_say() {
        let proxy = Proxy::start(doubling());
        let mut client = through(&proxy);
        proxy.inflict(Fault::Reset);
        assert_eq!(client.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut client = through(&proxy);
        proxy.inflict(Fault::Close);
        assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
        through(&proxy);
    }

    #[test]
    fn a_frame_is_cut_in_its_middle() {
        let proxy = Proxy::start(doubling());
        let mut client = through(&proxy);
        proxy.inflict(Fault::CutDown);
        client.write_all(b"xy").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"xy");
        let mut client = through(&proxy);
        proxy.inflict(Fault::CutUp);
        // What the server made of its half cannot come back any more.
        client.write_all(b"xyxy").unwrap();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.len() < 10, "{rest:?}");
    }

    #[test]
    fn what_is_held_back_is_silent_and_goes_on_later() {
        let proxy = Proxy::start(doubling());
        for fault in [Fault::Vanish, Fault::HoldDown, Fault::HoldUp] {
            let mut client = through(&proxy);
            proxy.inflict(fault);
            client.write_all(b"xy").unwrap();
            assert!(hears_nothing(&mut client), "{fault:?}");
            // Another connection is whole.
            through(&proxy);
            proxy.resume();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"xyxy", "{fault:?}");
        }
    }

    #[test]
    fn a_held_direction_does_not_tell_that_its_speaker_broke() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap());
        // The first is the proxy's look at its own listener.
        drop(listener.accept().unwrap());
        let mut client = StdStream::connect(proxy.address()).unwrap();
        let (server, _) = listener.accept().unwrap();
        proxy.inflict(Fault::HoldDown);
        drop(server);
        for _ in 0..20 {
            client.write_all(b"is anybody there?").unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        assert!(hears_nothing(&mut client));
    }

    #[test]
    fn who_dials_is_refused_until_it_listens_again() {
        let proxy = Proxy::start(doubling());
        let mut client = through(&proxy);
        proxy.refuse();
        let refused = StdStream::connect(proxy.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // What was connected is left alone.
        client.write_all(b"ab").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        proxy.accept();
        through(&proxy);
    }

    #[test]
    fn a_new_connection_can_be_deaf_from_its_beginning() {
        let proxy = Proxy::start(doubling());
        proxy.inflict_on_new(Fault::Vanish);
        let mut client = StdStream::connect(proxy.address()).unwrap();
        client.write_all(b"ab").unwrap();
        assert!(hears_nothing(&mut client));
    }
}
