//! Sessions that outlive their link: how a link is let go, and how a session goes on with another one.
//!
//! A client that returns opens a link like any other, and a fresh session with it. Once the client is known to have a
//! session already, the link is taken out of the fresh one and sent, as a letter, to the shard of that session, be it
//! the same; there it waits until nothing is in progress, the former link is told that it was replaced, and the
//! connect command is answered by the session that was there before. A link that may not have the session after all begins
//! a fresh one there. What must stay true: a link that was sent away goes on with a session or is told why not, whatever
//! becomes of the session that it was meant for; of two links that want the same session the later has it.

use super::commands::Outcome;
use super::{Entry, Key, Link, Shard, entry, renewals};
use crate::config::SecondConnection;
use crate::history::Page;
use crate::node::claims::{InUse, Parcel, Returning};
use crate::node::session_name::SessionPlace;
use crate::node::{Arrival, Control, Denied};
use crate::session::away::Missing;
use crate::session::outbox::Outbox;
use crate::session::{Closing, Initiator, Session, recovery};
use longwire_protocol::command::Connect;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::{ConnectResult, Reply};
use longwire_protocol::{Close, CloseReason};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

impl Shard {
    /// Lets the link of a session go that is away, and keeps the session if it may be kept.
    pub(super) fn let_go(self: &Rc<Shard>, key: Key) {
        let now = self.node.env.clock.now();
        let config = &self.node.config;
        let mut borrowed = self.state.borrow_mut();
        let state = &mut *borrowed;
        let Some(entry) = entry(&mut state.sessions, key).filter(|entry| entry.session.is_away()) else {
            return;
        };
        let Some(addresses) = entry.link.as_ref().map(Link::addresses) else { return };
        let connection = entry.session.connection();
        let keeps_alive = connection.is_finished() && connection.keeps_alive();
        let answered = entry.session.last_answer();
        let Some((link, outbox, closing)) = self.release(entry) else { return };
        let place = if self.is_draining.get() { None } else { self.node.claims.keep(addresses.0) };
        let is_kept = place.is_some();
        entry.session.keep(now, addresses, place, config);
        if !is_kept {
            match self.is_draining.get() {
                true => entry.session.lapse(CloseReason::Drain, "the server is shutting down"),
                false => entry.session.lapse(CloseReason::Full, "as many sessions are away as may be"),
            }
        }
        super::arm(&mut state.wheel, key, entry, config);
        if is_kept && flaw::is_on(Flaw::CloseAtBreak) {
            self.run_apart(self.clone().tell_break(key, entry, &closing));
        }
        let session = &entry.session;
        if is_kept && flaw::is_on(Flaw::PresenceLeftAtBreak) {
            for subscription in &session.subscriptions {
                self.node.leave(&subscription.channel, session.identity.client);
            }
        }
        let reason = closing.close.reason;
        self.count_close(reason);
        // A client that polls comes and goes all the time.
        if is_kept && reason != CloseReason::Answered {
            self.counters.sessions_kept.add(1);
            let connection = session.connection();
            tracing::info!(
                reason = reason.name(),
                category = reason.category().as_str(),
                began = closing.initiator.as_str(),
                client = %session.identity.client,
                user = ?session.identity.user,
                name = session.client_name(),
                address = %addresses.0,
                peer = %addresses.1,
                transport = connection.transport().as_str(),
                last_seen = format!("{:.1}s ago", (now - connection.heartbeat.last_seen()).as_secs_f64()),
                unsent_bytes = closing.unsent_bytes,
                grace = ?config.plain.grace,
                detail = closing.detail,
                "connection lost, its session is kept: {}",
                reason.explanation(),
            );
        }
        drop(borrowed);
        self.end_link(link, outbox, &closing, keeps_alive, answered);
    }

    /// Sends the link of a session that only began to the session that its client has already.
    pub(super) async fn hand_over(
        self: &Rc<Shard>,
        key: Key,
        holder: SessionPlace,
        (id, connect): (u32, Connect),
        arrival: Arrival,
    ) {
        let Some(mailbox) = self.node.room_at(holder.shard).await else { return };
        // One that its client gave up meanwhile must not take the place of the link that it opened instead.
        let now = self.node.env.clock.now();
        if !flaw::is_on(Flaw::OldLinkWins) {
            self.with(key, |entry| self.look_at_socket(now, &mut self.scratch(), entry));
        }
        // Without waiting from here on: a link that is in no table must be in a letter.
        let Some((session, link)) = self.detach(key) else { return };
        let Link { stream, peer, place } = link;
        let socket = match stream.into_accepted(peer) {
            Ok(socket) => socket,
            // The server is stopping.
            Err(error) => {
                return tracing::warn!(%peer, %error, "a socket was lost on its way to another shard");
            }
        };
        let client = session.identity.client;
        let headers = session.baggage().map(|baggage| baggage.headers.clone()).unwrap_or_default();
        let (connection, unsent, held) = session.into_link();
        let returning = Returning {
            holder,
            client,
            connection,
            socket,
            peer,
            place,
            unsent,
            held,
            headers,
            id,
            connect,
            arrival,
            is_proven: false,
        };
        mailbox.push(Control::TakeOver(Parcel::new(Box::new(returning))));
    }

    /// Takes a session out of the table that nobody was told of, with its link; unless it is closing.
    fn detach(&self, key: Key) -> Option<(Session, Link)> {
        let state = &mut *self.state.borrow_mut();
        let entry = entry(&mut state.sessions, key).filter(|entry| entry.session.closing().is_none())?;
        let link = entry.link.take()?;
        let entry = state.sessions.remove(key.index as usize);
        let identity = &entry.session.identity;
        state.directory.strike(identity.client, &identity.user, key.index);
        self.counters.outbox_bytes.sub(entry.counted_bytes.into());
        self.count_link(entry.session.connection(), false);
        Some((entry.session, link))
    }

    /// Gives a link to the session that it was sent to.
    pub(super) fn take_over(self: &Rc<Shard>, mut returning: Box<Returning>) {
        let SessionPlace { index, generation, .. } = returning.holder;
        let key = Key { index, generation };
        let named = std::mem::take(&mut returning.connect.session);
        returning.is_proven = self.named_by_client(&named) == Some(key);
        if !self.may_take(key, &returning) {
            return self.open_instead(returning, None);
        }
        let is_refusing = self.node.config.plain.second_connection == SecondConnection::Refuse;
        let place = &returning.place;
        let stands = self.with(key, |entry| {
            let session = &entry.session;
            let live = entry.link.as_ref().filter(|_| !session.is_away());
            let is_late = live.is_some_and(|link| link.place.is_later_than(place));
            (session.closing().is_some(), live.is_some(), is_late)
        });
        let Some((is_closing, is_live, is_late)) = stands else { return self.open_instead(returning, None) };
        let waiting =
            self.state.borrow().returning.get(&key).map(|waiting| waiting.place.is_later_than(place));
        // One that is closing has nothing to defend: when it is gone, the link begins a fresh session.
        if is_refusing && !is_closing && (is_live || waiting.is_some()) {
            return self.turn_away(returning, CloseReason::ClientInUse.into());
        }
        // After a standstill links come in any order, and of one that its client gave up before it opened the next
        // nobody need know yet that it is dead.
        if (is_late || waiting == Some(true)) && !is_closing && !flaw::is_on(Flaw::OldLinkWins) {
            return self.turn_away(returning, CloseReason::Replaced.into());
        }
        let former = self.state.borrow_mut().returning.insert(key, returning);
        self.touch(key, |_| {});
        // A later link came before this one could be taken.
        if let Some(former) = former {
            self.turn_away(former, CloseReason::Replaced.into());
        }
    }

    /// Whether the client of a link showed that a session is its own. The session may have become another user's since
    /// the link was sent to it.
    fn may_take(&self, key: Key, returning: &Returning) -> bool {
        let Returning { connect, arrival, is_proven, .. } = returning;
        let may_take = |entry: &mut Entry| {
            entry.session.is_open_to(&arrival.token.user, &connect.client_name, *is_proven)
        };
        self.with(key, may_take) == Some(true)
    }

    /// Has the claim of a session follow it to its user, and ends the session that has the same.
    ///
    /// # Errors
    /// `ClientInUse` if the client of that one is there and is to stay.
    pub(super) async fn claim_as(self: &Rc<Shard>, key: Key, user: &Arc<str>) -> Result<(), Denied> {
        let Ok(former) = self.move_claim(key, user) else {
            return Err(Denied::close(
                CloseReason::ClientInUse,
                "by the name of the user that the backend gave",
            ));
        };
        if let Some(former) = former {
            // Apart from the command, which is dropped if the client leaves.
            let (shard, (done, ended)) = (self.clone(), oneshot::channel());
            self.run_apart(async move {
                shard.end_former(former).await;
                // Who is not there any more is not waiting.
                let _ = done.send(());
            });
            let _ = ended.await;
        }
        Ok(())
    }

    /// Has the claim of a session follow it to a user: the session that is to be ended for it.
    pub(super) fn move_claim(&self, key: Key, user: &Arc<str>) -> Result<Option<SessionPlace>, InUse> {
        let may_replace = self.node.config.plain.second_connection == SecondConnection::Replace;
        self.with(key, |entry| entry.session.move_claim(user, may_replace)).unwrap_or(Ok(None))
    }

    /// Ends a session whose claim another one has.
    pub(super) async fn end_former(&self, former: SessionPlace) {
        let Some(mailbox) = self.node.room_at(former.shard).await else { return };
        let (answer, mut answers) = mpsc::unbounded_channel();
        mailbox.push(Control::GiveWay { holder: former, answer });
        // Without an answer the server is stopping.
        let _ = answers.recv().await;
    }

    /// Lets a fresh session begin with a link whose session is gone; one that was ended on purpose takes its
    /// client's other link with it.
    pub(super) fn open_instead(self: &Rc<Shard>, returning: Box<Returning>, closing: Option<&Closing>) {
        let ended =
            closing.filter(|closing| closing.initiator == Initiator::Server && !closing.is_for_a_while());
        if let Some(closing) = ended {
            return self.turn_away(returning, closing.close.clone());
        }
        if self.is_draining.get() {
            return self.turn_away(returning, CloseReason::Drain.into());
        }
        let Returning { connection, socket, peer, place, unsent, held, headers, .. } = *returning;
        let Returning { client, id, connect, arrival, .. } = *returning;
        let stream = match socket.into_stream() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%peer, %error, "a socket was lost before it was served"),
        };
        let mut session = Session::new(connection, client, self.node.env.clock.now());
        session.begin_with_connect(place.listener, unsent, held);
        if !headers.is_empty() {
            session.carry(|baggage| baggage.headers = headers);
        }
        let shard = self.clone();
        self.drive(session, Link { stream, peer, place }, |key| {
            Some(Box::pin(async move {
                let outcome = shard.arrive(key, id, connect, arrival).await;
                shard.answer(key, id, outcome);
            }))
        });
    }

    /// Tells a link that there is no session for it.
    fn turn_away(self: &Rc<Shard>, returning: Box<Returning>, close: Close) {
        let Returning { connection, socket, peer, place, unsent, connect, arrival, .. } = *returning;
        let reason = close.reason;
        tracing::info!(
            reason = reason.name(),
            category = reason.category().as_str(),
            began = Initiator::Server.as_str(),
            user = ?arrival.token.user,
            name = connect.client_name,
            %peer,
            transport = connection.transport().as_str(),
            code = close.code,
            advice = close.advice().as_str(),
            "connection closed before it had a session: {}",
            reason.explanation(),
        );
        self.count_close(reason);
        let Ok(stream) = socket.into_stream() else { return };
        let mut outbox = Outbox::default();
        for bytes in unsent.into_iter().chain([connection.farewell(&close)]) {
            outbox.push(bytes, usize::MAX).expect("there is no limit to pass");
        }
        let closing = Closing {
            close,
            initiator: Initiator::Server,
            detail: String::new(),
            unsent_bytes: 0,
            is_polite: true,
        };
        self.end_link(Link { stream, peer, place }, outbox, &closing, false, None);
    }

    /// Puts the link that waits for a session in the place of its former one: the connect command, and who the client
    /// is.
    fn attach(self: &Rc<Shard>, key: Key) -> Option<(u32, Connect, Arrival)> {
        // One that is closing leaves it to whoever takes it out of the table.
        self.with(key, |entry| entry.session.closing().is_none()).filter(|is_open| *is_open)?;
        let returning = self.state.borrow_mut().returning.remove(&key)?;
        if !self.may_take(key, &returning) {
            self.open_instead(returning, None);
            return None;
        }
        let Returning { connection, socket, peer, place, unsent, held, headers, .. } = *returning;
        let Returning { id, connect, arrival, is_proven, .. } = *returning;
        let stream = match socket.into_stream() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "a socket was lost on its way to its session");
                return None;
            }
        };
        let link = Link { stream, peer, place };
        let replaced = {
            let mut state = self.state.borrow_mut();
            let entry = entry(&mut state.sessions, key).filter(|entry| entry.session.closing().is_none())?;
            entry.session.change_name(connection.transport(), is_proven);
            entry.session.replace_link();
            entry.link.is_some().then(|| self.release(entry)).flatten()
        };
        if let Some((former, outbox, closing)) = replaced {
            self.count_close(closing.close.reason);
            self.end_link(former, outbox, &closing, false, None);
        }
        self.touch(key, |entry| {
            let session = &mut entry.session;
            let now = self.node.env.clock.now();
            let former = session.connection().transport();
            let last = session.last_break();
            if last.as_ref().is_some_and(|last| last.closing.close.reason == CloseReason::Answered) {
                // A client that polls.
                tracing::debug!(client = %session.identity.client, "session taken over by the next poll");
            } else {
                self.counters.sessions_taken_over.add(1);
                tracing::info!(
                    client = %session.identity.client,
                    user = ?session.identity.user,
                    name = session.client_name(),
                    from = former.as_str(),
                    to = connection.transport().as_str(),
                    address = %link.addresses().0,
                    %peer,
                    reason = last.as_ref().map(|last| last.closing.close.reason.name()),
                    away_for = last
                        .as_ref()
                        .and_then(|last| Some(format!("{:.1}s", (now - last.since?).as_secs_f64()))),
                    kept_bytes = last.as_ref().map(|last| last.kept_bytes),
                    dropped = last.as_ref().map(|last| last.dropped),
                    "session taken over by a later connection of its client",
                );
            }
            session.take_link(connection, link.place.listener, unsent, held);
            session.carry(|baggage| baggage.headers = headers);
            self.count_link(session.connection(), true);
            entry.link = Some(link);
        });
        self.counters.sessions_away.sub(1);
        Some((id, connect, arrival))
    }

    /// Takes the link from a session that is away: the link, what is to be written to it, and how it ended.
    fn release(&self, entry: &mut Entry) -> Option<(Link, Outbox, Closing)> {
        let link = entry.link.take()?;
        let outbox = std::mem::take(&mut entry.session.outbox);
        self.counters.outbox_bytes.sub(entry.counted_bytes.into());
        entry.counted_bytes = 0;
        self.count_link(entry.session.connection(), false);
        self.counters.sessions_away.add(1);
        let closing = entry.session.last_break()?.closing.clone();
        Some((link, outbox, closing))
    }

    /// Answers the connect command of a client that returned: how its session stands.
    async fn restore(self: &Rc<Shard>, key: Key, id: u32, connect: Connect, arrival: Arrival) -> Outcome {
        let config = &self.node.config;
        let Arrival { mut token, data, is_from_backend } = arrival;
        // While the link was on its way, the order to close who came by this token may have passed it by.
        if !connect.token.is_empty() {
            self.node.require_valid(&token)?;
        }
        let Some(terms) = self.terms(key, &connect, &token, is_from_backend) else { return Ok(None) };
        let ttl_seconds = terms.ttl_seconds;
        // The session's user may be another by then than the one who proved to be the same.
        let user = self.with(key, |entry| {
            entry.session.set_terms(terms);
            if entry.session.identity.info != token.info && entry.session.identity.user == token.user {
                entry.session.identity.info = token.info;
                renewals::show_again(&self.node, entry, None);
            }
            entry.session.identity.user.clone()
        });
        let Some(user) = user else { return Ok(None) };
        let personal = self.add_personal(&user, &mut token.channels)?;
        let (mut serials, mut subs) = self.begin_server_side(key, token.channels, &connect, false).await?;
        let pages = self.missing_pages(key, &connect).await?;
        self.supersede(key, personal).await;
        self.with(key, |entry| {
            // One may have been ended while the others began.
            let mut is_there =
                serials.iter().map(|serial| entry.session.subscription_numbered(*serial).is_some());
            subs.retain(|_| is_there.next() == Some(true));
            if entry.session.is_away() || entry.session.closing().is_some() {
                return;
            }
            let (kept, results) = entry.session.restore(&serials, pages, config);
            for (_, result) in &results {
                let outcome = match result.recovered {
                    true => &self.counters.recoveries_complete,
                    false => &self.counters.recoveries_incomplete,
                };
                outcome.add(1);
            }
            serials.extend(kept);
            subs.extend(results);
            let reply = Reply::Connect(Box::new(ConnectResult {
                ttl_seconds,
                data,
                subs,
                resumed: true,
                lost: !entry.session.is_certain(),
                ..self.connect_result(key, &entry.session)
            }));
            entry.session.answer(id, &reply, config);
        });
        self.go_live(key, &serials);
        self.touch(key, |_| {});
        Ok(None)
    }

    /// What history has for the subscriptions of a client that returned.
    async fn missing_pages(&self, key: Key, connect: &Connect) -> Result<Vec<(Missing, Page)>, Denied> {
        let missing = self.with(key, |entry| entry.session.missing_since(connect)).unwrap_or_default();
        let max = self.node.config.client.max_recovery_publications;
        let mut pages = Vec::with_capacity(missing.len());
        for missing in missing {
            let page = self.node.catch_up(&missing.channel, recovery::needed(missing.since, max)).await?;
            pages.push((missing, page));
        }
        Ok(pages)
    }
}

/// Lets a session go on with the link that waits for it.
pub(super) async fn go_on(shard: Rc<Shard>, key: Key) {
    let Some((id, connect, arrival)) = shard.attach(key) else { return };
    let outcome = shard.restore(key, id, connect, arrival).await;
    shard.answer(key, id, outcome);
}
