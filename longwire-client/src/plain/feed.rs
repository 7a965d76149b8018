//! A feed and how it begins: handles on a [`State`] that a task moves.
//!
//! What must stay true: a feed ends when it is closed or dropped, and then nothing of it stays.

use super::event::Event;
use super::settings::{Beat, Settings};
use super::state::State;
use super::{FirstPacket, Format, Framing};
use crate::address::Address;
use crate::core::Stats;
use crate::error::Error;
use crate::options::Options;
use crate::shared::Shared;
use bytes::Bytes;
use futures_core::Stream;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a feed is told before it begins.
#[derive(Clone, Debug)]
#[must_use = "nothing begins before `build`"]
pub struct Builder {
    urls: Vec<String>,
    settings: Settings,
}

impl Builder {
    /// Names a further server, which is tried when those before it fail.
    pub fn server(mut self, url: &str) -> Builder {
        self.urls.push(url.to_owned());
        self
    }

    /// The channels. None are needed where the token or the backend bring them.
    pub fn channels<S: Into<String>>(mut self, channels: impl IntoIterator<Item = S>) -> Builder {
        self.settings.channels.extend(channels.into_iter().map(Into::into));
        self
    }

    /// The connection token. It travels in a header, or in the first packet.
    pub fn token(mut self, token: impl Into<String>) -> Builder {
        self.settings.token = token.into();
        self
    }

    /// What it calls itself: by that name a session outlives a break. Choose one that nobody guesses.
    pub fn client(mut self, name: impl Into<String>) -> Builder {
        self.settings.client = name.into();
        self
    }

    /// Where an earlier feed stopped, as its [`Feed::position`] said.
    pub fn since(mut self, position: impl Into<String>) -> Builder {
        self.settings.since = position.into();
        self
    }

    /// Whether objects come, or data alone.
    pub fn format(mut self, format: Format) -> Builder {
        self.settings.format = format;
        self
    }

    /// How long the answer to a poll may take: whole seconds. 25 s.
    pub fn wait(mut self, wait: Duration) -> Builder {
        self.settings.wait = wait;
        self
    }

    /// How packets are told apart, over TCP. A line feed behind each.
    pub fn framing(mut self, framing: Framing) -> Builder {
        self.settings.framing = framing;
        self
    }

    /// What the server takes the first packet for, over TCP, as its listener is set. Nothing. Channels and a position need
    /// JSON; where the listener's `first_packet` says otherwise, the feed ends as [`Cause::PassedOver`](crate::Cause::PassedOver).
    pub fn first_packet(mut self, first: FirstPacket) -> Builder {
        self.settings.first_packet = first;
        self
    }

    /// Over TCP: says `says` every `interval`, which the server answers with `answer` (empty: with nothing).
    pub fn heartbeat(
        mut self,
        says: impl Into<Bytes>,
        answer: impl Into<Bytes>,
        interval: Duration,
    ) -> Builder {
        self.settings.heartbeat = Some(Beat { says: says.into(), answer: answer.into(), interval });
        self
    }

    /// How the connection is made, kept and made again.
    pub fn options(mut self, options: Options) -> Builder {
        self.settings.options = options;
        self
    }

    /// Reads everything into [`Settings`].
    ///
    /// # Errors
    /// A URL that is none.
    pub fn settings(mut self) -> Result<Settings, Error> {
        for url in &self.urls {
            self.settings.servers.push(Arc::new(Address::parse(url)?));
        }
        Ok(self.settings)
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// What of the settings makes no sense.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Feed, Error> {
        let settings = self.settings()?;
        let tls = settings.options.tls.clone();
        let shared = Shared::spawn(State::new(settings)?, tls);
        shared.with(|state, now| state.start(now));
        Ok(Feed { shared })
    }
}

/// A feed: what was published, in order.
pub struct Feed {
    shared: Arc<Shared<State>>,
}

impl Feed {
    /// Begins to say what a feed of this server needs.
    pub fn builder(url: &str) -> Builder {
        Builder { urls: vec![url.to_owned()], settings: Settings::new(Vec::new()) }
    }

    /// Waits for what is heard next; `None` once nothing follows, for the reason that [`error`](Self::error) gives.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Gives what was heard already, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.shared.with_nudge(|state, now| {
            let event = state.try_event(now);
            (event, state.take_resumed())
        })
    }

    /// Gives a message for the backend to the connection: a packet, or a `POST /send` in the order of the calls. It waits
    /// while there is no connection. That it arrives is not promised if the connection breaks.
    ///
    /// # Errors
    /// The feed is over, or has no way to say anything.
    pub async fn send(&self, message: impl AsRef<[u8]>) -> Result<(), Error> {
        let message = message.as_ref();
        let is_text = std::str::from_utf8(message).is_ok();
        let mut sender = Sender { shared: &self.shared, number: None };
        poll_fn(|cx| {
            let number = &mut sender.number;
            sender.shared.with(|state, now| state.poll_send(now, message, is_text, number, cx))
        })
        .await
    }

    /// Where the reader stands once it has taken what waits ([`try_next`](Self::try_next)): what a later feed's
    /// [`since`](Builder::since) goes on from.
    pub fn position(&self) -> String {
        self.shared.with_nudge(|state, _| (state.position(), false))
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.shared.with_nudge(|state, _| (state.stats().clone(), false))
    }

    /// Why nothing follows, once nothing does.
    pub fn error(&self) -> Option<Error> {
        self.shared.with_nudge(|state, _| (state.error().cloned(), false))
    }

    /// Ends the feed; what waits can still be read.
    pub fn close(&self) {
        self.shared.with(|state, now| state.close(now));
    }

    #[cfg(test)]
    pub(super) fn waiting_senders(&self) -> usize {
        self.shared.with_nudge(|state, _| (state.senders.len(), false))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.shared.with_nudge(|state, now| {
            let polled = state.poll_event(now, cx);
            (polled, state.take_resumed())
        })
    }
}

/// Whoever waits to send, and may give up.
struct Sender<'a> {
    shared: &'a Shared<State>,
    number: Option<u64>,
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.with_nudge(|state, _| (state.forget_sender(number), false));
        }
    }
}

impl Stream for Feed {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}
