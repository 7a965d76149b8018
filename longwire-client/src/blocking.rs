//! The clients for programs that wait for nothing asynchronously.
//!
//! Connections live on one runtime with a thread of its own, begun when it is first wanted. A client is made there with
//! [`start`], and then every future and every stream of this crate can be waited for from an ordinary thread: with
//! [`Wait::wait`], [`Wait::wait_for`] and [`iter`].
//!
//! ```no_run
//! use longwire_client::blocking::{self, Wait};
//! use longwire_client::stomp::Client;
//!
//! # fn main() -> Result<(), longwire_client::Error> {
//! let client = blocking::start(|| Client::builder("stomp://guest:guest@127.0.0.1:61613").build())?;
//! client.send("/queue/mails", "hello").persistent(true).wait()?;
//! for message in blocking::iter(client.subscribe("/queue/mails").start()?) {
//!     println!("{message:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: nothing for asynchronous programs, whose threads it would hold up. What must stay true: the thread
//! that waits only waits; connections, beats and returns go on without it.

use futures_core::Stream;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};

/// Does what needs a runtime: builds a client.
///
/// # Panics
/// If the system gives no thread for the runtime.
pub fn start<T>(build: impl FnOnce() -> T) -> T {
    let _context = runtime().enter();
    build()
}

/// Waiting for what is not there yet.
pub trait Wait: IntoFuture + Sized {
    /// Waits as long as it takes.
    ///
    /// ```
    /// use longwire_client::blocking::Wait;
    /// assert_eq!(async { 6 * 7 }.wait(), 42);
    /// ```
    fn wait(self) -> Self::Output {
        match run(self, None) {
            Some(output) => output,
            // Without a limit, only the output ends it.
            None => unreachable!("a wait without a limit ended early"),
        }
    }

    /// Waits for so long at most; what is not there by then is given up, as if its future had been dropped.
    fn wait_for(self, limit: Duration) -> Option<Self::Output> {
        run(self, Instant::now().checked_add(limit))
    }
}

impl<F: IntoFuture> Wait for F {}

/// What a stream brings, each waited for.
pub fn iter<S: Stream + Unpin>(stream: S) -> Iter<S> {
    Iter { stream }
}

/// What a stream brings. It ends with the stream.
#[derive(Debug)]
pub struct Iter<S> {
    stream: S,
}

impl<S: Stream + Unpin> Iter<S> {
    /// The next item, if it comes within `limit`; `None` if not, `Some(None)` at the stream's end.
    pub fn next_for(&mut self, limit: Duration) -> Option<Option<S::Item>> {
        std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).wait_for(limit)
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: Stream + Unpin> Iterator for Iter<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_next(cx)).wait()
    }
}

/// The runtime of all blocking clients of the process.
fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime =
            Builder::new_current_thread().enable_all().build().expect("the system lets a runtime be made");
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("longwire-client".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .expect("the system gives a thread for the runtime");
        handle
    })
}

/// Runs a future on this thread, which sleeps while there is nothing to do.
fn run<F: IntoFuture>(future: F, until: Option<Instant>) -> Option<F::Output> {
    let _context = runtime().enter();
    let mut future = pin!(future.into_future());
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// Wakes a thread. Parking may end early, and a wake before it is not lost.
struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::stomp;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// The next frame that a client wrote, up to its zero byte.
    fn frame(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte != [0] {
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap().trim_start().to_owned()
    }

    fn header<'a>(frame: &'a str, name: &str) -> &'a str {
        frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
    }

    #[test]
    fn a_thread_sends_receives_and_leaves_without_a_runtime_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("stomp://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(frame(&mut stream).starts_with("CONNECT\n"));
            stream.write_all(b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0").unwrap();
            loop {
                let said = frame(&mut stream);
                let command = said.lines().next().unwrap_or_default().to_owned();
                match command.as_str() {
                    "SUBSCRIBE" => {
                        let id = header(&said, "id");
                        let message = format!(
                            "MESSAGE\nsubscription:{id}\nmessage-id:1\ndestination:/queue/a\n\nhello\0"
                        );
                        stream.write_all(message.as_bytes()).unwrap();
                    }
                    "DISCONNECT" => {}
                    "" => return,
                    _ => {}
                }
                let receipt = header(&said, "receipt");
                if !receipt.is_empty() {
                    stream.write_all(format!("RECEIPT\nreceipt-id:{receipt}\n\n\0").as_bytes()).unwrap();
                }
            }
        });
        let client = start(|| stomp::Client::builder(&url).build()).unwrap();
        client.connected().wait().unwrap();
        client.send("/queue/a", "hello").wait_for(Duration::from_secs(20)).expect("in time").unwrap();
        let mut messages = iter(client.subscribe("/queue/a").start().unwrap());
        let body = messages.find_map(|event| match event {
            stomp::Event::Message(message) => Some(message.text().unwrap_or_default().to_owned()),
            _ => None,
        });
        assert_eq!(body.as_deref(), Some("hello"));
        assert!(messages.next_for(Duration::from_millis(50)).is_none(), "nothing follows");
        drop(messages);
        client.close().wait();
        assert_eq!(client.connected().wait(), Err(Error::Closed));
        server.join().unwrap();
    }

    #[test]
    fn a_limit_ends_the_waiting_and_drops_what_was_waited_for() {
        struct Told(Arc<()>);
        impl Future for Told {
            type Output = ();
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                Poll::Pending
            }
        }
        let witness = Arc::new(());
        let told = Told(Arc::clone(&witness));
        assert!(Arc::ptr_eq(&told.0, &witness));
        assert_eq!(told.wait_for(Duration::from_millis(20)), None);
        assert_eq!(Arc::strong_count(&witness), 1);
        // What needs a runtime finds one.
        async { tokio::time::sleep(Duration::from_millis(5)).await }.wait();
    }
}
