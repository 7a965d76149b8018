//! Several connections for many short-lived users, such as requests that each send a message.
//!
//! A pool holds N clients of M servers. Each begins at another server and has the others to fall back on, keeps its connection by itself,
//! and is watched by its own heartbeat: who has no connection is given to nobody. A checkout takes the client that the
//! fewest have.
//!
//! Two things keep a pool whole. A client that lost its connection comes back by itself, whether or not anybody asks for one, as long as its
//! [`Reconnect`](crate::Reconnect) lets it: with the defaults that is for ever. One that gave up for good (a server that said so, a limit, a
//! program that closed it) is replaced by the next checkout, and all such at once; until then its place stays empty, for nothing in a pool runs
//! by itself, and a server that refuses is not asked again on behalf of nobody. So the first checkout after a long rest may wait for a
//! connection although the pool has several places. What must stay true: no lock is held across an await; a lease that ends is counted
//! where it was taken; a server that refuses is not asked in a tight loop.

use crate::error::Error;
use crate::{realtime, stomp};
use longwire_protocol::heartbeat;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client has to have been there before it is replaced.
const MIN_LIFE: Duration = Duration::from_secs(1);

/// A future of a client's.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A client of which there can be a pool.
pub trait Pooled: Clone + Send + Sync + 'static {
    /// What describes one.
    type Builder;

    /// Describes one at this server.
    fn describe(server: &str) -> Self::Builder;

    /// Adds a server to fall back on.
    fn fall_back(builder: Self::Builder, server: &str) -> Self::Builder;

    /// Makes it.
    ///
    /// # Errors
    /// What is wrong with the description.
    fn make(builder: Self::Builder) -> Result<Self, Error>;

    /// Waits until it has a connection with a login; an error if it never will, or takes nothing more.
    fn connection(&self) -> Pending<'_, Result<(), Error>>;

    /// Ends it.
    fn end(&self) -> Pending<'_, ()>;
}

macro_rules! pooled {
    ($($dialect:ident),+) => {$(
        impl Pooled for $dialect::Client {
            type Builder = $dialect::Builder;

            fn describe(server: &str) -> $dialect::Builder {
                $dialect::Client::builder(server)
            }

            fn fall_back(builder: $dialect::Builder, server: &str) -> $dialect::Builder {
                builder.server(server)
            }

            fn make(builder: $dialect::Builder) -> Result<$dialect::Client, Error> {
                builder.build()
            }

            fn connection(&self) -> Pending<'_, Result<(), Error>> {
                Box::pin(self.connected())
            }

            fn end(&self) -> Pending<'_, ()> {
                Box::pin(self.close())
            }
        }
    )+};
}

pooled!(realtime, stomp);

/// What every client of a pool is told.
type Tell<C> = Box<dyn Fn(<C as Pooled>::Builder) -> <C as Pooled>::Builder + Send + Sync>;

/// A pool that is being described; made by [`Pool::builder`].
#[must_use = "nothing connects before it is built"]
pub struct Builder<C: Pooled> {
    servers: Vec<String>,
    size: usize,
    wait: Duration,
    tell: Tell<C>,
}

impl<C: Pooled> Builder<C> {
    /// The servers.
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers.extend(servers.into_iter().map(Into::into));
        self
    }

    /// How many connections there are; 4 unless it is said.
    pub fn size(mut self, connections: usize) -> Self {
        self.size = connections;
        self
    }

    /// How long a checkout waits for a connection; 10 s unless it is said.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(heartbeat::OFF);
        self
    }

    /// What every client is told beside its servers: login, options and the like.
    pub fn each(mut self, tell: impl Fn(C::Builder) -> C::Builder + Send + Sync + 'static) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// Begins to connect. It needs the runtime of tokio around it.
    ///
    /// # Errors
    /// There is no server, no size, or something that a client was told cannot be.
    pub fn build(self) -> Result<Pool<C>, Error> {
        let Builder { servers, size, wait, tell } = self;
        if servers.is_empty() || size == 0 {
            return Err(Error::BadArgument { what: "a pool has servers and a size".to_owned() });
        }
        let shared = Shared { servers, wait, tell, slots: Mutex::default() };
        let slots = (0..size).map(|place| shared.make(place)).collect::<Result<Vec<_>, _>>()?;
        *shared.lock() = slots;
        Ok(Pool { shared: Arc::new(shared) })
    }
}

/// Several connections, of which each user takes one for a while. Clones are handles of the same one.
pub struct Pool<C: Pooled> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Pooled> {
    servers: Vec<String>,
    wait: Duration,
    tell: Tell<C>,
    slots: Mutex<Vec<Slot<C>>>,
}

struct Slot<C> {
    client: C,
    leases: usize,
    /// How many clients were here before.
    replaced: u64,
    made: Instant,
}

/// One connection of a pool, as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Member {
    /// It has a connection with a login.
    pub is_connected: bool,
    /// How many have it at the moment.
    pub leases: usize,
    /// How many clients gave up in its place before.
    pub replaced: u64,
}

impl<C: Pooled> Pool<C> {
    /// Begins to describe a pool.
    pub fn builder() -> Builder<C> {
        let tell: Tell<C> = Box::new(|builder| builder);
        Builder { servers: Vec::new(), size: 4, wait: Duration::from_secs(10), tell }
    }

    /// Takes the client that the fewest have, of those with a connection; waits for one if there is none. Clients that gave up for good are
    /// replaced first.
    ///
    /// # Errors
    /// None came about in time, all clients gave up, or the pool is closed.
    pub async fn get(&self) -> Result<Lease<C>, Error> {
        let deadline = Instant::now() + self.shared.wait;
        loop {
            self.shared.replace_dead()?;
            if let Some(lease) = self.least_taken() {
                return Ok(lease);
            }
            let clients: Vec<C> = self.shared.lock().iter().map(|slot| slot.client.clone()).collect();
            // Who gives up meanwhile is replaced, whoever else is still waited for.
            let until = deadline.min(Instant::now() + MIN_LIFE);
            match tokio::time::timeout_at(until, any_connection(&clients)).await {
                Ok(result) => result?,
                Err(_) if until < deadline => {}
                Err(_) => return Err(Error::Timeout),
            }
        }
    }

    /// Takes the client that the fewest have, if any has a connection. Clients that gave up are replaced, as [`get`](Self::get) does: what
    /// comes of them a later checkout sees. It needs the runtime of tokio around it.
    pub fn try_get(&self) -> Option<Lease<C>> {
        // Whoever cannot be made now was made once: the next checkout tries again, and `get` says why.
        let _ = self.shared.replace_dead();
        self.least_taken()
    }

    fn least_taken(&self) -> Option<Lease<C>> {
        let mut slots = self.shared.lock();
        let (place, slot) = slots
            .iter_mut()
            .enumerate()
            .filter(|(_, slot)| matches!(standing(&slot.client), Poll::Ready(Ok(()))))
            .min_by_key(|(_, slot)| slot.leases)?;
        slot.leases += 1;
        let (client, replaced) = (slot.client.clone(), slot.replaced);
        Some(Lease { client, place, replaced, shared: self.shared.clone() })
    }

    /// The pool's connections as they are. Replaces none.
    pub fn members(&self) -> Vec<Member> {
        let slots = self.shared.lock();
        let member = |slot: &Slot<C>| Member {
            is_connected: matches!(standing(&slot.client), Poll::Ready(Ok(()))),
            leases: slot.leases,
            replaced: slot.replaced,
        };
        slots.iter().map(member).collect()
    }

    /// Closes all clients, all at a time; who has one finds it closed. No other takes their places.
    pub async fn close(&self) {
        let slots = std::mem::take(&mut *self.shared.lock());
        let mut ends: Vec<_> = slots.iter().map(|slot| slot.client.end()).collect();
        poll_fn(|context| {
            ends.retain_mut(|end| end.as_mut().poll(context).is_pending());
            if ends.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl<C: Pooled> Clone for Pool<C> {
    fn clone(&self) -> Pool<C> {
        Pool { shared: self.shared.clone() }
    }
}

impl<C: Pooled> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("members", &self.members()).finish_non_exhaustive()
    }
}

impl<C: Pooled> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, Vec<Slot<C>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the client of a place, which begins at another server than its neighbours.
    fn make(&self, place: usize) -> Result<Slot<C>, Error> {
        let (after, before) =
            (self.servers.iter().cycle().skip(place % self.servers.len()), self.servers.len());
        let mut servers = after.take(before);
        let first = servers.next().map_or("", String::as_str);
        let builder = servers.fold(C::describe(first), |builder, server| C::fall_back(builder, server));
        let client = C::make((self.tell)(builder))?;
        Ok(Slot { client, leases: 0, replaced: 0, made: Instant::now() })
    }

    /// Puts new clients in the places of those that gave up.
    fn replace_dead(&self) -> Result<(), Error> {
        let mut slots = self.lock();
        for (place, slot) in slots.iter_mut().enumerate() {
            let is_over = matches!(standing(&slot.client), Poll::Ready(Err(_)));
            if is_over && slot.made.elapsed() >= MIN_LIFE {
                let replaced = slot.replaced + 1;
                *slot = Slot { replaced, ..self.make(place)? };
            }
        }
        Ok(())
    }
}

/// Whether a client has a connection, or will never have one.
fn standing<C: Pooled>(client: &C) -> Poll<Result<(), Error>> {
    client.connection().as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits until one of these has a connection; an error if none ever will.
async fn any_connection<C: Pooled>(clients: &[C]) -> Result<(), Error> {
    let mut waiting: Vec<_> = clients.iter().map(C::connection).collect();
    let mut last = Error::Closed;
    poll_fn(|context| {
        let mut is_connected = false;
        waiting.retain_mut(|connection| match connection.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => {
                is_connected = true;
                false
            }
            Poll::Ready(Err(error)) => {
                last = error;
                false
            }
        });
        match (is_connected, waiting.is_empty()) {
            (true, _) => Poll::Ready(Ok(())),
            (false, true) => Poll::Ready(Err(last.clone())),
            (false, false) => Poll::Pending,
        }
    })
    .await
}

/// A client of a pool, for as long as this is held.
pub struct Lease<C: Pooled> {
    client: C,
    place: usize,
    replaced: u64,
    shared: Arc<Shared<C>>,
}

impl<C: Pooled> Deref for Lease<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

impl<C: Pooled> Drop for Lease<C> {
    fn drop(&mut self) {
        let mut slots = self.shared.lock();
        if let Some(slot) = slots.get_mut(self.place).filter(|slot| slot.replaced == self.replaced) {
            slot.leases -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Reconnect};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    /// A server that logs everybody in; each connection comes out here, to be broken.
    async fn server(name: &'static str) -> (String, mpsc::UnboundedReceiver<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("stomp://{}", listener.local_addr().unwrap());
        let (out, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                while socket.read_u8().await.is_ok_and(|byte| byte != 0) {}
                let answer = format!("CONNECTED\nversion:1.2\nserver:{name}\n\n\0");
                _ = socket.write_all(answer.as_bytes()).await;
                _ = out.send(socket);
            }
        });
        (url, connections)
    }

    fn name(client: &stomp::Client) -> String {
        client.server().map(|server| server.name).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_checkout_takes_the_client_that_the_fewest_have() {
        let ((one, in_one), (other, in_other)) = (server("one").await, server("other").await);
        let pool = Pool::<stomp::Client>::builder().servers([one, other]).size(2).build().unwrap();
        while pool.members().iter().any(|member| !member.is_connected) {
            tokio::task::yield_now().await;
        }
        let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        assert_eq!((name(&first), name(&second)), ("one".to_owned(), "other".to_owned()));
        let third = pool.get().await.unwrap();
        assert_eq!(name(&third), "one");
        drop((first, third));
        assert_eq!(name(&pool.get().await.unwrap()), "one");
        let leases: Vec<usize> = pool.members().iter().map(|member| member.leases).collect();
        assert_eq!(leases, [0, 1]);
        let held = pool.get().await.unwrap();
        // Farewells need not be waited for where nobody is there to answer them.
        drop((in_one, in_other));
        pool.close().await;
        assert!(!held.is_connected() && pool.members().is_empty());
        assert!(matches!(pool.get().await, Err(Error::Closed)) && pool.try_get().is_none());
    }

    #[tokio::test]
    async fn a_client_that_is_being_closed_is_lent_to_nobody() {
        let (url, mut connections) = server("one").await;
        let pool = Pool::<stomp::Client>::builder().servers([url]).size(1).build().unwrap();
        let lease = pool.get().await.unwrap();
        let _connection = connections.recv().await.unwrap();
        // Nobody answers, so that the farewell is not said yet.
        let _sent = lease.send("/queue/a", "1").start();
        let mut closing = Box::pin(lease.close());
        assert!(closing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(lease.is_connected());
        assert!(pool.try_get().is_none() && !pool.members()[0].is_connected);
    }

    #[tokio::test]
    async fn who_gave_up_is_replaced_while_others_still_try() {
        let (url, mut connections) = server("one").await;
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute_url = format!("stomp://{}", mute.local_addr().unwrap());
        let never = Reconnect { is_on: false, ..Reconnect::default() };
        let pool = Pool::<stomp::Client>::builder()
            .servers([url, mute_url])
            .size(2)
            .wait(Duration::from_secs(5))
            .each(move |builder| builder.options(Options { reconnect: never.clone(), ..Options::default() }))
            .build()
            .unwrap();
        while !pool.members()[0].is_connected {
            tokio::task::yield_now().await;
        }
        drop(connections.recv().await);
        while pool.members()[0].is_connected {
            tokio::task::yield_now().await;
        }
        assert_eq!(name(&pool.get().await.unwrap()), "one");
        assert_eq!(pool.members()[0].replaced, 1);
    }

    #[tokio::test]
    async fn who_has_lost_its_connection_is_given_to_nobody() {
        let ((one, mut in_one), (other, _in_other)) = (server("one").await, server("other").await);
        let servers = [one.clone(), other];
        let slow = Reconnect { first_delay: Duration::from_secs(3600), ..Reconnect::default() };
        let pool = Pool::<stomp::Client>::builder()
            .servers(servers)
            .size(2)
            .each(move |builder| {
                builder.options(Options {
                    reconnect: Reconnect { max_delay: slow.first_delay, ..slow.clone() },
                    ..Options::default()
                })
            })
            .build()
            .unwrap();
        drop(in_one.recv().await);
        while pool.members()[0].is_connected || !pool.members()[1].is_connected {
            tokio::task::yield_now().await;
        }
        let leases = [pool.get().await.unwrap(), pool.get().await.unwrap()];
        assert!(leases.iter().all(|lease| name(lease) == "other"));
    }

    #[tokio::test]
    async fn a_client_that_gave_up_is_replaced() {
        let (url, mut connections) = server("one").await;
        let never = Reconnect { is_on: false, ..Reconnect::default() };
        let pool = Pool::<stomp::Client>::builder()
            .servers([url])
            .size(1)
            .each(move |builder| builder.options(Options { reconnect: never.clone(), ..Options::default() }))
            .build()
            .unwrap();
        let old = pool.get().await.unwrap();
        drop(connections.recv().await);
        // Not before it has been there for a while.
        let new = loop {
            match pool.get().await {
                Ok(lease) if pool.members()[0].replaced == 1 => break lease,
                Ok(_) | Err(Error::GaveUp { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(new.is_connected() && !old.is_connected());
        assert_eq!(pool.members()[0].leases, 1);
        drop(old);
        assert_eq!(pool.members()[0].leases, 1, "it was counted in another's place");
    }

    #[tokio::test]
    async fn who_only_tries_gets_replacements_too_and_nobody_is_replaced_before() {
        let (url, mut connections) = server("one").await;
        let never = Reconnect { is_on: false, ..Reconnect::default() };
        let pool = Pool::<stomp::Client>::builder()
            .servers([url])
            .size(2)
            .each(move |builder| builder.options(Options { reconnect: never.clone(), ..Options::default() }))
            .build()
            .unwrap();
        drop((connections.recv().await, connections.recv().await));
        tokio::time::sleep(MIN_LIFE).await;
        assert!(pool.members().iter().all(|member| !member.is_connected && member.replaced == 0));
        assert!(pool.try_get().is_none(), "the connections are only begun");
        assert!(pool.members().iter().all(|member| member.replaced == 1), "{pool:?}");
        let kept = (connections.recv().await, connections.recv().await);
        while pool.try_get().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(pool.members().iter().all(|member| member.replaced == 1), "{pool:?}");
        drop(kept);
    }

    #[tokio::test]
    async fn a_checkout_waits_no_longer_than_it_is_told() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("stomp://{}", nobody.local_addr().unwrap());
        let builder = || Pool::<stomp::Client>::builder().servers([url.clone()]);
        let pool = builder().wait(Duration::from_millis(50)).build().unwrap();
        assert!(matches!(pool.get().await, Err(Error::Timeout)));
        let patient = builder().wait(Duration::MAX).build().unwrap();
        let limit = Duration::from_millis(50);
        assert!(tokio::time::timeout(limit, patient.get()).await.is_err(), "it waits for ever");
        assert!(Pool::<stomp::Client>::builder().build().is_err());
    }
}
