//! What a session takes from its peer: bytes, and the commands in them.
//!
//! The part of [`Session`] that decodes. Commands are taken one by one; while one is in progress, what follows waits
//! undecoded, and so it does while too many are unanswered that are not waited for one by one (`queues`). What must stay
//! true: nothing is taken after the end, and nothing is decoded that there is no room for.

use super::{Initiator, Session, State};
use crate::config::Config;
use crate::node::control::{Message, Relayed};
use longwire_protocol::command::{Command, Numbered};
use longwire_protocol::connection::{Dialect, Fault, Inbound};
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::queue::QueueCommand;
use longwire_protocol::{Close, CloseReason, ErrorCode};
use std::time::Instant;

impl Session {
    /// Takes a message that the peer sent by another way than the link: with the request that is answered, or by
    /// one of its own.
    pub fn handle_message(&mut self, now: Instant, message: Message, config: &Config) -> Relayed {
        let dialect = match &message {
            Message::Commands(_) => Dialect::Centrifuge,
            Message::Content { .. } => Dialect::Plain,
        };
        if self.closing.is_some() || !self.connection.is_emulated() || self.connection.dialect() != dialect {
            return Relayed::Unknown;
        }
        self.connection.heartbeat.seen(now);
        match message {
            Message::Commands(commands) => {
                let waiting = self.connection.waiting_bytes() + commands.len();
                if waiting > 2 * config.websocket.max_message_bytes {
                    return Relayed::Full;
                }
                self.connection.deliver(commands);
                self.take(now, &[], config);
            }
            Message::Content { data, .. } if self.connection.is_beat(&data) => {
                return self.answer_beat(now, config);
            }
            // Whoever speaks by requests can be told to wait.
            Message::Content { .. } if self.is_inbox_full(config) || !self.is_in_time(now, config) => {
                return Relayed::Full;
            }
            Message::Content { data, is_text } => self.keep_message(data, is_text),
        }
        Relayed::Taken
    }

    /// Takes what the peer sent.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8], config: &Config) {
        if !flaw::is_on(Flaw::OnlyPongsCount) {
            self.connection.heartbeat.seen(now);
        }
        if self.closing.is_some() || self.is_away() {
            return;
        }
        self.note_heard(now);
        if self.is_leaving() {
            // STOMP 1.2, "DISCONNECT": nothing is sent after it, and what is all the same means nothing. Nor does
            // anything behind a broken rule.
            return;
        }
        let is_to_wait = self.is_busy || self.held_bytes() > 0 || self.is_inbox_full(config);
        let left = if is_to_wait { bytes.len() } else { self.take(now, bytes, config) };
        if left > 0 {
            let rest = &bytes[bytes.len() - left..];
            self.passing.get_or_insert_default().held.add(now, rest, config);
        }
    }

    /// What the driver shall do, if anything; it answers with [`answer`](Self::answer) or
    /// [`deny`](Self::deny) and then calls [`resume`](Self::resume).
    pub fn poll_request(&mut self) -> Option<Numbered> {
        self.passing.as_mut()?.request.take()
    }

    /// Whether [`poll_request`](Self::poll_request) has something to give out.
    pub fn has_request(&self) -> bool {
        self.passing.as_ref().is_some_and(|passing| passing.request.is_some())
    }

    /// Goes on with what waited behind a request.
    pub fn resume(&mut self, now: Instant, config: &Config) {
        self.is_busy = false;
        self.take_held(now, config);
    }

    /// Decodes what waited.
    pub(super) fn take_held(&mut self, now: Instant, config: &Config) {
        let held = self.passing.as_mut().map(|passing| passing.held.take()).unwrap_or_default();
        let left = self.take(now, held.bytes(), config);
        if left > 0 {
            self.passing.get_or_insert_default().held.put_back(held, left);
        }
        self.passing.take_if(|passing| passing.is_empty());
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.passing.as_ref().map_or(0, |passing| passing.held.len())
    }

    /// Decodes and takes what it can; how many bytes at the end have to wait. While there is no link it decodes nothing:
    /// what the last one asked for and was not carried out must not meet the next one, which asks for itself.
    ///
    /// A full inbox keeps nobody from being welcomed: nothing is told before that, so it would stay full for ever. What is
    /// decoded until then is the opening's commands, and each of them is waited for.
    fn take(&mut self, now: Instant, mut input: &[u8], config: &Config) -> usize {
        while !self.is_busy
            && self.closing.is_none()
            && !self.is_away()
            && (!self.is_inbox_full(config) || !self.is_told())
            && !self.are_queues_full()
            && !self.is_leaving()
        {
            match self.connection.decode(&mut input) {
                Ok(Some(Inbound::Command(numbered))) => self.handle_command(now, numbered, config),
                Ok(Some(Inbound::Transmit(bytes))) => {
                    if self.count_command(now, config) {
                        self.write(bytes, config);
                    }
                }
                Ok(Some(Inbound::Closed(code))) => {
                    let mut close = Close::from(CloseReason::PeerClosed);
                    // The answer repeats the peer's code (RFC 6455 section 5.5.1).
                    close.code = code.unwrap_or(1000);
                    close.text = "".into();
                    self.begin_close(close, Initiator::Peer, String::new(), true);
                }
                Ok(None) => return 0,
                Err(fault) if self.uses_queues() => {
                    self.break_off(fault, config);
                    return 0;
                }
                Err(Fault { reason, what }) => {
                    self.close(reason.into(), &what);
                    return 0;
                }
            }
        }
        let is_over = self.closing.is_some() || self.is_away() || self.is_leaving();
        if is_over { 0 } else { input.len() }
    }

    fn handle_command(&mut self, now: Instant, numbered: Numbered, config: &Config) {
        if !self.count_command(now, config) {
            return;
        }
        let id = numbered.id;
        match (self.state, &numbered.command) {
            (_, Command::Pong) if flaw::is_on(Flaw::OnlyPongsCount) => self.connection.heartbeat.seen(now),
            (_, Command::Pong) => {}
            (State::AwaitingConnect, Command::Connect(_)) => self.begin_request(numbered),
            (State::AwaitingConnect, _) => {
                self.close(CloseReason::BadRequest.into(), "command before connect")
            }
            (State::Refused, _) => {
                self.close(CloseReason::BadRequest.into(), "command after a refused connect")
            }
            (_, Command::Connect(_)) => {
                self.close(CloseReason::BadRequest.into(), "second connect");
            }
            (_, Command::Queue(QueueCommand::Consume(consume))) if consume.durable_of.is_some() => {
                // Whether the client may read the channel is found out first.
                self.begin_request(numbered);
            }
            (_, Command::Queue(_)) => {
                if let Command::Queue(command) = numbered.command {
                    self.ask_queues(id, command);
                }
            }
            (_, Command::Disconnect) => self.leave(id, config),
            (_, Command::Send { .. }) => self.close(CloseReason::NotAvailable.into(), "send"),
            (_, Command::Message { .. }) => {
                if let Command::Message { data, is_text } = numbered.command {
                    self.keep_message(data, is_text);
                }
            }
            (_, Command::Ping) => self.answer(id, &ErrorCode::NotAvailable.into(), config),
            (_, Command::Rpc { method, .. }) if !config.has_method(method) => {
                self.answer(id, &ErrorCode::NotAvailable.into(), config);
            }
            (_, Command::Subscribe(ask)) => {
                if ask.channel.is_empty() {
                    return self.close(CloseReason::BadRequest.into(), "subscribe without a channel");
                }
                if !matches!(&*ask.delta, "" | "fossil") {
                    return self.close(CloseReason::BadRequest.into(), "unknown delta encoding");
                }
                match self.refuse_subscribe(&ask.channel, ask.kind, config) {
                    Some(code) => self.answer(id, &code.into(), config),
                    None => self.begin_request(numbered),
                }
            }
            (_, Command::Publish { channel, .. }) if channel.is_empty() => {
                self.close(CloseReason::BadRequest.into(), "publish without a channel");
            }
            (_, Command::SubRefresh { channel, .. }) if channel.is_empty() => {
                self.close(CloseReason::BadRequest.into(), "sub_refresh without a channel");
            }
            // Maps and shared polls, which longwire does not have.
            (_, Command::Publish { kind: 1.., .. } | Command::SubRefresh { kind: 1.., .. }) => {
                self.answer(id, &ErrorCode::NotAvailable.into(), config);
            }
            (_, _) => self.begin_request(numbered),
        }
    }

    /// Counts something that the peer wants; false, and closing, if it wants too much.
    fn count_command(&mut self, now: Instant, config: &Config) -> bool {
        // Whoever fills queues is slowed down, not sent away: see `queues`.
        let rules = &config.stomp;
        let is_allowed = match self.connection.dialect() {
            Dialect::Stomp if rules.commands_per_second == 0 => true,
            Dialect::Stomp => {
                self.rate.allow(now - self.opened, rules.commands_per_second, rules.command_burst)
            }
            _ => self.is_in_time(now, config),
        };
        if !is_allowed {
            self.close(CloseReason::TooManyRequests.into(), "");
        }
        is_allowed
    }

    fn refuse_subscribe(&self, channel: &str, kind: i32, config: &Config) -> Option<ErrorCode> {
        if self.is_subscribed(channel) {
            // A plain client names in its request what it wants to be in, and one of STOMP never hears of subscriptions that
            // are not its own: whether the backend was faster is nothing to them.
            (self.connection.dialect() == Dialect::Centrifuge).then_some(ErrorCode::AlreadySubscribed)
        } else if self.subscriptions.len() >= config.client.max_subscriptions {
            Some(ErrorCode::LimitExceeded)
        } else if kind != 0 {
            Some(ErrorCode::NotAvailable)
        } else {
            None
        }
    }

    pub(super) fn begin_request(&mut self, numbered: Numbered) {
        self.passing.get_or_insert_default().request = Some(numbered);
        self.is_busy = true;
    }
}
