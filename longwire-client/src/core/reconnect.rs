//! Where the next attempt goes, with which transport, after what delay, and whether there is one.
//!
//! Pure: told how attempts and connections ended, it answers with a [`Next`]. Servers are tried in turn; at each the
//! ladder of transports is gone down, for as long as none of them has worked in this client's life: the one that did is
//! kept. The span of the delays grows only when every server has failed once, and begins anew only behind a connection
//! that lasted. What must stay true: no attempt comes before the server wants one; a server that says "stop" in its own
//! words is obeyed at once, one that refuses a transport only when every server has refused every transport, and where
//! a login was done before, only if it refuses the client.

use crate::cause::Cause;
use crate::options::Reconnect;
use crate::transition::Limit;
use longwire_protocol::Advice;
use longwire_protocol::backoff::{Backoff, Policy};
use std::time::{Duration, Instant};

/// How an attempt or a connection came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached {
    /// Not even a socket.
    Nothing,
    /// A socket, but no login.
    Socket,
    /// The login, at that time.
    Login(Instant),
}

/// What to do after an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// The next attempt.
    Attempt {
        /// After so long.
        delay: Duration,
    },
    /// There is none.
    GiveUp(Limit),
}

/// The place in the turn, and what failed so far.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    servers: usize,
    rungs: usize,
    server: usize,
    rung: usize,
    /// Which rungs failed at this server since the attempt there began, a bit each.
    fallen: u8,
    /// The rung that worked once.
    kept: Option<usize>,
    /// How many servers in a row failed since the delays last grew.
    failed_servers: usize,
    /// How many servers in a row refused every transport for good.
    refusals: usize,
    failures: u32,
    /// Since when attempts fail.
    failing_since: Option<Instant>,
    backoff: Backoff,
}

impl Turn {
    /// The state before the first attempt, with `servers` servers and `rungs` transports, at most eight.
    pub(crate) fn new(servers: usize, rungs: usize, options: &Reconnect) -> Turn {
        let policy = Policy { first: options.first_delay, factor: options.factor, max: options.max_delay };
        Turn {
            servers: servers.max(1),
            rungs: rungs.clamp(1, 8),
            server: 0,
            rung: 0,
            fallen: 0,
            kept: None,
            failed_servers: 0,
            refusals: 0,
            failures: 0,
            failing_since: None,
            backoff: Backoff::new(policy),
        }
    }

    /// The server whose turn it is, as a place in the list.
    pub(crate) fn server(&self) -> usize {
        self.server
    }

    /// The transport whose turn it is, as a place in the ladder.
    pub(crate) fn rung(&self) -> usize {
        self.rung
    }

    /// How many attempts failed in a row. All transports at one server are one attempt.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes that an attempt begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    /// Notes that handshake and login are done: this transport is kept.
    pub(crate) fn succeed(&mut self) {
        self.kept = Some(self.rung);
        self.fallen = 0;
        self.refusals = 0;
        self.failing_since = None;
    }

    /// Says what comes after an end. `chance` is a random number from 0.0 to 1.0.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        cause: &Cause,
        reached: Reached,
        options: &Reconnect,
        chance: f64,
    ) -> Next {
        if *cause == Cause::Closed {
            return Next::GiveUp(Limit::Advice);
        }
        match reached {
            Reached::Login(since) => {
                self.lose(now, cause, now.saturating_duration_since(since), options, chance)
            }
            Reached::Socket | Reached::Nothing => self.fail(now, cause, reached, options, chance),
        }
    }

    /// An established connection ended.
    fn lose(
        &mut self,
        now: Instant,
        cause: &Cause,
        lasted: Duration,
        options: &Reconnect,
        chance: f64,
    ) -> Next {
        self.failing_since = Some(now);
        if is_told_to_stop(cause) {
            return Next::GiveUp(Limit::Advice);
        }
        if lasted >= options.stable_after {
            self.backoff.reset();
            self.failures = 0;
            self.failed_servers = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        if let Some(limit) = self.limit(options) {
            return Next::GiveUp(limit);
        }
        // Its own server first, unless that one sends everybody away for a while.
        if cause.advice() == Advice::ReconnectAfter {
            self.server = (self.server + 1) % self.servers;
        }
        self.after(now, cause, self.backoff.clone().next_delay(chance), true, options)
    }

    /// An attempt failed.
    fn fail(
        &mut self,
        now: Instant,
        cause: &Cause,
        reached: Reached,
        options: &Reconnect,
        chance: f64,
    ) -> Next {
        if is_told_to_stop(cause) {
            return Next::GiveUp(Limit::Advice);
        }
        let is_refusal = cause.advice() == Advice::Stop;
        if reached == Reached::Socket && is_of_the_transport(cause) && (self.kept.is_none() || is_refusal) {
            self.fallen |= 1 << self.rung;
            if let Some(rung) = (0..self.rungs).find(|rung| self.fallen & 1 << rung == 0) {
                self.rung = rung;
                return Next::Attempt { delay: Duration::ZERO };
            }
        }
        self.fallen = 0;
        self.rung = self.kept.unwrap_or(0);
        self.failures = self.failures.saturating_add(1);
        let is_final = is_refusal && !(self.kept.is_some() && is_of_the_way(cause));
        self.refusals = if is_final { self.refusals + 1 } else { 0 };
        if self.refusals >= self.servers {
            return Next::GiveUp(Limit::Advice);
        }
        if let Some(limit) = self.limit(options) {
            return Next::GiveUp(limit);
        }
        self.server = (self.server + 1) % self.servers;
        self.failed_servers += 1;
        let grows = self.failed_servers >= self.servers;
        let delay = self.backoff.clone().next_delay(chance);
        self.after(now, cause, delay, grows, options)
    }

    fn limit(&self, options: &Reconnect) -> Option<Limit> {
        if !options.is_on {
            return Some(Limit::Off);
        }
        options.max_attempts.is_some_and(|max| self.failures >= max.max(1)).then_some(Limit::Attempts)
    }

    /// The attempt after `drawn`, or later if the server wants it later.
    fn after(
        &mut self,
        now: Instant,
        cause: &Cause,
        drawn: Duration,
        grows: bool,
        options: &Reconnect,
    ) -> Next {
        if grows {
            self.backoff.next_delay(0.0);
            self.failed_servers = 0;
        }
        let at_least = match (cause.after(), cause.advice()) {
            (Some(after), _) => after.min(LONGEST_WISH),
            (None, Advice::ReconnectAfter) => options.first_delay,
            _ => Duration::ZERO,
        };
        // Behind the wish and not at it: many were told the same.
        let delay = at_least + drawn;
        let failing = self.failing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if options.max_elapsed.is_some_and(|max| failing + delay > max) {
            return Next::GiveUp(Limit::Elapsed);
        }
        Next::Attempt { delay }
    }
}

/// How long a server can keep a client away.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// Whether the server, in its own words and not by the status of one transport or the settings of one listener, does not
/// want the client back.
fn is_told_to_stop(cause: &Cause) -> bool {
    cause.advice() == Advice::Stop && !matches!(cause, Cause::Status { .. } | Cause::PassedOver { .. })
}

/// Whether a status may be that of somebody in between, and pass: a proxy that does not know its routes yet, a portal that
/// wants to be paid.
fn is_of_the_way(cause: &Cause) -> bool {
    matches!(cause, Cause::Status { status, .. } if !matches!(status, 401 | 403 | 410))
}

/// Whether another transport may do where this one failed behind the connected socket.
fn is_of_the_transport(cause: &Cause) -> bool {
    match cause {
        // Who asks for patience asks it of all transports.
        Cause::Status { status: 429, .. } | Cause::Status { retry_after: Some(_), .. } => false,
        Cause::Told { .. } | Cause::NoToken { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Reconnect {
        Reconnect::default()
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn attempt(seconds: f64) -> Next {
        Next::Attempt { delay: secs(seconds) }
    }

    fn status(status: u16) -> Cause {
        Cause::Status { status, retry_after: None, text: String::new() }
    }

    #[test]
    fn the_span_grows_with_each_failure_of_the_only_server() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(1, 1, &options);
        let delays: Vec<Next> =
            (0..7).map(|_| turn.end(now, &Cause::Refused, Reached::Nothing, &options, 1.0)).collect();
        assert_eq!(delays, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0].map(attempt));
        assert_eq!(turn.failures(), 7);
    }

    #[test]
    fn the_span_grows_only_when_all_servers_failed_once() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(3, 1, &options);
        let mut tried = Vec::new();
        for _ in 0..7 {
            let server = turn.server();
            let next = turn.end(now, &Cause::Refused, Reached::Nothing, &options, 1.0);
            tried.push((server, next));
        }
        let expected = [(0, 0.5), (1, 0.5), (2, 0.5), (0, 1.0), (1, 1.0), (2, 1.0), (0, 2.0)];
        assert_eq!(tried, expected.map(|(server, delay)| (server, attempt(delay))));
    }

    #[test]
    fn a_lost_connection_goes_to_its_own_server_first() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(2, 1, &options);
        turn.end(now, &Cause::Refused, Reached::Nothing, &options, 0.0);
        assert_eq!(turn.server(), 1);
        turn.succeed();
        let next = turn.end(now + secs(60.0), &Cause::Reset, Reached::Login(now), &options, 1.0);
        assert_eq!((turn.server(), next), (1, attempt(0.5)));
    }

    #[test]
    fn only_a_connection_that_lasted_begins_the_delays_anew() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(1, 1, &options);
        for expected in [0.5, 1.0, 2.0] {
            turn.succeed();
            let next = turn.end(now + secs(9.9), &Cause::Ended, Reached::Login(now), &options, 1.0);
            assert_eq!(next, attempt(expected));
        }
        assert_eq!(turn.failures(), 3);
        turn.succeed();
        let next = turn.end(now + secs(10.0), &Cause::Ended, Reached::Login(now), &options, 1.0);
        assert_eq!((next, turn.failures()), (attempt(0.5), 0));
    }

    #[test]
    fn the_ladder_is_gone_down_at_once_until_a_transport_works() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(2, 3, &options);
        let mut tried = Vec::new();
        for _ in 0..5 {
            tried.push((turn.server(), turn.rung()));
            turn.end(now, &status(404), Reached::Socket, &options, 0.0);
        }
        assert_eq!(tried, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
        // The third works at the second server, and is kept however it is lost.
        turn.succeed();
        assert_eq!((turn.server(), turn.rung()), (1, 2));
        turn.end(now, &Cause::Ended, Reached::Login(now), &options, 0.0);
        turn.end(now, &Cause::LoginTimeout, Reached::Socket, &options, 0.0);
        turn.end(now, &Cause::Refused, Reached::Nothing, &options, 0.0);
        assert_eq!((turn.server(), turn.rung()), (1, 2));
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_left_with_all_its_transports() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(2, 3, &options);
        turn.end(now, &Cause::ConnectTimeout, Reached::Nothing, &options, 0.0);
        assert_eq!((turn.server(), turn.rung()), (1, 0));
        let busy = Cause::Status { status: 503, retry_after: Some(secs(3.0)), text: String::new() };
        let next = turn.end(now, &busy, Reached::Socket, &options, 1.0);
        assert_eq!((turn.server(), turn.rung(), next), (0, 0, attempt(3.5)));
    }

    #[test]
    fn statuses_are_final_when_every_server_refused_every_transport() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(2, 2, &options);
        let mut ends = Vec::new();
        for _ in 0..4 {
            ends.push(turn.end(now, &status(403), Reached::Socket, &options, 1.0));
        }
        assert_eq!(ends, [attempt(0.0), attempt(0.5), attempt(0.0), Next::GiveUp(Limit::Advice)]);
        let passed_over = Cause::PassedOver { channel: "news".to_owned() };
        let mut turn = Turn::new(2, 1, &options);
        let first = turn.end(now, &passed_over, Reached::Socket, &options, 1.0);
        let second = turn.end(now, &passed_over, Reached::Socket, &options, 1.0);
        assert_eq!((first, second), (attempt(0.5), Next::GiveUp(Limit::Advice)));
        // A server in between that is merely away may yet want the client.
        let mut turn = Turn::new(2, 1, &options);
        turn.end(now, &status(403), Reached::Socket, &options, 1.0);
        turn.end(now, &Cause::Refused, Reached::Nothing, &options, 1.0);
        assert!(matches!(turn.end(now, &status(403), Reached::Socket, &options, 1.0), Next::Attempt { .. }));
    }

    #[test]
    fn who_was_logged_in_does_not_believe_a_missing_route() {
        let (now, options) = (Instant::now(), options());
        for (passing, is_final) in [(404, false), (302, false), (200, false), (401, true), (403, true)] {
            let mut turn = Turn::new(1, 1, &options);
            turn.succeed();
            turn.end(now + secs(60.0), &Cause::Ended, Reached::Login(now), &options, 1.0);
            let next = turn.end(now + secs(61.0), &status(passing), Reached::Socket, &options, 1.0);
            assert_eq!(next == Next::GiveUp(Limit::Advice), is_final, "{passing}: {next:?}");
            assert!(is_final || next == attempt(1.0), "{next:?}");
        }
    }

    #[test]
    fn stop_in_the_servers_own_words_is_final() {
        let (now, options) = (Instant::now(), options());
        for reached in [Reached::Socket, Reached::Login(now)] {
            let mut turn = Turn::new(3, 3, &options);
            let next = turn.end(now, &Cause::told(3500, "invalid token"), reached, &options, 0.5);
            assert_eq!(next, Next::GiveUp(Limit::Advice));
        }
    }

    #[test]
    fn the_servers_wish_is_the_least_delay() {
        let (now, options) = (Instant::now(), options());
        let mut turn = Turn::new(2, 1, &options);
        turn.succeed();
        let drain = Cause::told(3001, "shutdown");
        assert_eq!(turn.end(now + secs(60.0), &drain, Reached::Login(now), &options, 0.0), attempt(0.5));
        assert_eq!(turn.server(), 1, "another takes over");
        let wish =
            |after| Cause::Told { code: 3001, text: String::new(), advice: Advice::ReconnectAfter, after };
        turn.succeed();
        let next = turn.end(now + secs(60.0), &wish(Some(secs(7.0))), Reached::Login(now), &options, 0.5);
        assert_eq!(next, attempt(7.25));
        turn.succeed();
        let for_ever = wish(Some(Duration::MAX));
        let next = turn.end(now + secs(60.0), &for_ever, Reached::Login(now), &options, 0.0);
        assert_eq!(next, attempt(3600.0));
    }

    #[test]
    fn attempts_and_elapsed_time_have_limits() {
        let now = Instant::now();
        let limited = Reconnect { max_attempts: Some(3), ..options() };
        let mut turn = Turn::new(1, 1, &limited);
        turn.begin(now);
        let ends: Vec<Next> =
            (0..3).map(|_| turn.end(now, &Cause::Refused, Reached::Nothing, &limited, 0.0)).collect();
        assert_eq!(ends, [attempt(0.0), attempt(0.0), Next::GiveUp(Limit::Attempts)]);

        let limited = Reconnect { max_elapsed: Some(secs(10.0)), ..options() };
        let mut turn = Turn::new(1, 1, &limited);
        turn.begin(now);
        assert_eq!(turn.end(now + secs(9.4), &Cause::Refused, Reached::Nothing, &limited, 1.0), attempt(0.5));
        turn.begin(now + secs(9.9));
        let next = turn.end(now + secs(9.9), &Cause::Refused, Reached::Nothing, &limited, 1.0);
        assert_eq!(next, Next::GiveUp(Limit::Elapsed));
        // What counts is how long attempts fail, not how long the client lives.
        let mut turn = Turn::new(1, 1, &limited);
        turn.begin(now);
        turn.succeed();
        let next = turn.end(now + secs(1e6), &Cause::Reset, Reached::Login(now), &limited, 1.0);
        assert_eq!(next, attempt(0.5));
    }

    #[test]
    fn who_does_not_come_back_gives_up_at_the_first_end_but_may_change_the_transport() {
        let now = Instant::now();
        let off = Reconnect { is_on: false, ..options() };
        let mut turn = Turn::new(2, 2, &off);
        assert_eq!(turn.end(now, &status(404), Reached::Socket, &off, 0.5), attempt(0.0));
        turn.succeed();
        let next = turn.end(now + secs(60.0), &Cause::Ended, Reached::Login(now), &off, 0.5);
        assert_eq!(next, Next::GiveUp(Limit::Off));
    }

    #[test]
    fn ten_thousand_clients_that_lose_one_server_come_back_spread_over_the_span() {
        let (now, options) = (Instant::now(), options());
        let mut chance = crate::chance::Chance::new(Some(42));
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let mut turn = Turn::new(1, 1, &options);
            turn.succeed();
            let lost = now + secs(60.0);
            let Next::Attempt { delay } =
                turn.end(lost, &Cause::Reset, Reached::Login(now), &options, chance.draw())
            else {
                panic!("nothing limits the attempts");
            };
            tenths[(delay.as_secs_f64() / 0.5 * 10.0) as usize] += 1;
        }
        // 1 000 in each tenth; 30 is the standard deviation.
        assert!(tenths.iter().all(|count| count.abs_diff(1_000) < 150), "{tenths:?}");
    }
}
