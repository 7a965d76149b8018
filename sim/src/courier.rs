//! Carries what a client says beside its stream: one request after the other, each on a connection of its own or on
//! one that is kept, through the same network as everything else.
//!
//! It repeats nothing: what is lost is lost, and the client finds out by the answer that does not come on its
//! stream. What must stay true: requests of one client arrive in their order, and none is sent while the user's
//! host has no power or stands still.

use crate::client::Post;
use crate::client::backend::Backend;
use crate::net::Dialled;
use crate::workload::{CONNECT_TIMEOUT, Dice};
use crate::world::{ANSWER_TIMEOUT, World, answered};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Of the requests, how many go over the kept connection.
const KEPT: f64 = 0.6;

/// How long a connection is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// The requests of one user.
pub struct Courier {
    number: usize,
    ip: IpAddr,
    posts: RefCell<VecDeque<(SocketAddr, Post)>>,
    arrived: Notify,
    is_over: Cell<bool>,
}

impl Courier {
    /// A courier who has nothing to carry.
    pub fn new(number: usize, ip: IpAddr) -> Courier {
        Courier { number, ip, posts: RefCell::default(), arrived: Notify::new(), is_over: Cell::default() }
    }

    /// Takes a message to a machine.
    pub fn take(&self, to: SocketAddr, post: Post) {
        self.posts.borrow_mut().push_back((to, post));
        self.arrived.notify_one();
    }

    /// Forgets what was not sent.
    pub fn forget(&self) {
        self.posts.borrow_mut().clear();
    }

    /// Takes nothing more, and ends.
    pub fn leave(&self) {
        self.is_over.set(true);
        self.forget();
        self.arrived.notify_one();
    }

    /// Carries until it is told to leave; `frozen` says until when the user stands still.
    pub async fn run(&self, world: &World, mut dice: Dice, frozen: impl Fn() -> Option<Instant>) {
        let mut kept: Option<(Instant, SocketAddr, Dialled, Backend)> = None;
        while !self.is_over.get() {
            let Some((to, post)) = self.posts.borrow_mut().pop_front() else {
                self.arrived.notified().await;
                continue;
            };
            if let Some(until) = frozen() {
                world.clock.sleep_until(until).await;
            }
            let is_kept = dice.chance(KEPT);
            kept.take_if(|(since, ..)| *since + KEPT_FOR < world.clock.now());
            let mut used = kept.take_if(|(_, address, ..)| is_kept && *address == to);
            if let Some((.., link, _)) = &mut used
                && is_broken(link).await
            {
                used = None;
            }
            let (mut link, mut backend) = match used {
                Some((.., link, backend)) => (link, backend),
                None => match world.net.connect(self.ip, to, CONNECT_TIMEOUT).await {
                    Ok(link) => (link, Backend::new("longwire.test")),
                    Err(_) => continue,
                },
            };
            let request = backend.post(&post.path, post.content_type, None, &post.body);
            let Some(request) = request else { continue };
            world.checks.borrow_mut().posts(to, post.number, &post.path);
            let calling = answered(&mut link, &mut backend, &request);
            match world.clock.timeout(ANSWER_TIMEOUT, calling).await {
                Some(Ok(Some((status, text)))) => {
                    world.checks.borrow().relayed(self.number, status, &text);
                    world.checks.borrow_mut().posted(post.number, status);
                    if is_kept && backend.is_usable() {
                        kept = Some((world.clock.now(), to, link, backend));
                    }
                }
                Some(Ok(None)) | None => {
                    world.trace.note(format_args!("a request of user {} was lost", self.number));
                }
                Some(Err(what)) => world.checks.borrow().relayed(self.number, 0, &what),
            }
        }
    }
}

/// Whether a kept connection ended while nobody used it.
async fn is_broken(link: &mut Dialled) -> bool {
    poll_fn(|cx| Poll::Ready(link.poll_read(cx, &mut [0; 16]).is_ready())).await
}
