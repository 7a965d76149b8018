//! When tokens are asked for, and what is done with them.

use super::awaited::Pending;
use super::subscriptions::{Stage, ended, refresh_after};
use super::{Phase, State, Timer};
use crate::cause::Cause;
use crate::realtime::token::{TokenError, TokenRequest, TokenSubject};
use longwire_protocol::centrifuge::client::{Command, encode_command};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// After how long a refresh of the connection that failed is tried again, at least; at most twice as long.
const RETRY_REFRESH: Duration = Duration::from_secs(5);

/// The same for a subscription.
const RETRY_SUB_REFRESH: Duration = Duration::from_secs(10);

impl State {
    /// The next token that is wanted; `Ready(None)` when there never will be one.
    pub fn poll_token_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<TokenRequest>> {
        while let Some(subject) = self.token_requests.pop_front() {
            let source = match &subject {
                TokenSubject::Connection => self.login.token_source.clone(),
                TokenSubject::Subscription { channel, key } => self
                    .subscription(channel, *key)
                    .and_then(|subscription| subscription.settings.token_source.clone()),
            };
            if let Some(source) = source {
                return Poll::Ready(Some(TokenRequest { subject, source }));
            }
        }
        if matches!(self.phase, Phase::Over(_)) {
            return Poll::Ready(None);
        }
        self.token_runner = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A token has come, or will not.
    pub fn handle_token(&mut self, now: Instant, subject: &TokenSubject, result: Result<String, TokenError>) {
        let result = match result {
            Ok(token) if token.is_empty() => {
                Err(TokenError::Denied("the source gave an empty token".to_owned()))
            }
            result => result,
        };
        match subject {
            TokenSubject::Connection => self.handle_connection_token(now, result),
            TokenSubject::Subscription { channel, key } => {
                self.handle_subscription_token(now, channel, *key, result);
            }
        }
        self.work(now);
    }

    /// A token has to be fetched before the login.
    pub(super) fn lacks_token(&self) -> bool {
        self.token.is_empty() && self.login.token_source.is_some()
    }

    /// Forgets a token that the server does not take; false if there is nowhere to get another from.
    pub(super) fn drop_token(&mut self) -> bool {
        let has_source = self.login.token_source.is_some();
        if has_source {
            self.token = String::new();
        }
        has_source
    }

    pub(super) fn ask_connection_token(&mut self) {
        if !std::mem::replace(&mut self.awaits_token, true) {
            self.request(TokenSubject::Connection);
        }
    }

    pub(super) fn ask_subscription_token(&mut self, channel: &Arc<str>) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        if !std::mem::replace(&mut subscription.awaits_token, true) {
            let key = subscription.key;
            self.request(TokenSubject::Subscription { channel: Arc::clone(channel), key });
        }
    }

    fn request(&mut self, subject: TokenSubject) {
        self.token_requests.push_back(subject);
        self.wakes.extend(self.token_runner.take());
    }

    fn handle_connection_token(&mut self, now: Instant, result: Result<String, TokenError>) {
        self.awaits_token = false;
        match (result, &self.phase) {
            (_, Phase::Over(_)) => {}
            (Ok(token), Phase::Open) => {
                self.token = token;
                self.log_in(now);
            }
            (Ok(token), phase) => {
                let refreshes = *phase == Phase::Connected && std::mem::take(&mut self.refreshes);
                self.token = token;
                if refreshes {
                    let (id, mut line) = (self.next_id(), Vec::new());
                    encode_command(id, &Command::Refresh { token: &self.token }, &mut line);
                    self.ask(now, id, &line, Pending::Refresh);
                }
            }
            (Err(TokenError::Denied(what)), Phase::Open | Phase::Connected) => {
                self.core.fail(now, Cause::NoToken { what, is_final: true });
            }
            (Err(TokenError::Failed(what)), Phase::Open) => {
                self.core.fail(now, Cause::NoToken { what, is_final: false });
            }
            (Err(TokenError::Failed(_)), Phase::Connected) => self.retry_refresh(now),
            // It is asked again as soon as there is a connection that needs it.
            (Err(_), Phase::Away | Phase::LoggingIn) => {}
        }
    }

    fn handle_subscription_token(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        key: u32,
        result: Result<String, TokenError>,
    ) {
        let is_connected = self.phase == Phase::Connected;
        let Some(subscription) = self.subscription(channel, key) else { return };
        subscription.awaits_token = false;
        let is_live = matches!(subscription.stage, Stage::Live(_)) && is_connected;
        match result {
            Ok(token) => {
                subscription.token = token;
                if is_live {
                    self.write_sub_refresh(now, channel, key);
                } else {
                    self.ask_for(now, channel);
                }
            }
            Err(TokenError::Denied(what)) => {
                self.end_subscription(now, channel, ended::UNAUTHORIZED, what.into());
            }
            Err(TokenError::Failed(_)) if is_live => self.retry_sub_refresh(now, channel),
            Err(TokenError::Failed(_)) if subscription.stage == Stage::Wanted && is_connected => {
                self.pause(now, channel);
            }
            Err(TokenError::Failed(_)) => {}
        }
    }

    fn write_sub_refresh(&mut self, now: Instant, channel: &Arc<str>, key: u32) {
        let (id, mut line) = (self.next_id(), Vec::new());
        let Some(subscription) = self.subscription(channel, key) else { return };
        let command = Command::SubRefresh { channel, token: &subscription.token };
        encode_command(id, &command, &mut line);
        self.ask(now, id, &line, Pending::SubRefresh(Arc::clone(channel), key));
    }

    /// Notes by when the connection's token has to be another.
    pub(super) fn expect_refresh(&mut self, now: Instant, ttl_seconds: Option<u32>) {
        if let Some(ttl) = ttl_seconds.filter(|_| self.login.token_source.is_some()) {
            self.timers.insert((now + refresh_after(ttl), Timer::Refresh));
        }
    }

    pub(super) fn retry_refresh(&mut self, now: Instant) {
        let delay = RETRY_REFRESH.mul_f64(1.0 + self.core.draw());
        self.timers.insert((now + delay, Timer::Refresh));
    }

    /// Notes by when a subscription's token has to be another.
    pub(super) fn expect_sub_refresh(&mut self, now: Instant, channel: &Arc<str>, ttl_seconds: Option<u32>) {
        if let Some(ttl) = ttl_seconds {
            self.refresh_subscription_at(now + refresh_after(ttl), channel);
        }
    }

    pub(super) fn retry_sub_refresh(&mut self, now: Instant, channel: &Arc<str>) {
        let delay = RETRY_SUB_REFRESH.mul_f64(1.0 + self.core.draw());
        self.refresh_subscription_at(now + delay, channel);
    }

    fn refresh_subscription_at(&mut self, at: Instant, channel: &Arc<str>) {
        self.forget_refresh(channel);
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        if subscription.settings.token_source.is_some() {
            subscription.refresh_at = Some(at);
            self.timers.insert((at, Timer::SubRefresh(Arc::clone(channel))));
        }
    }

    /// The token of a subscription is not to be refreshed for the time being.
    pub(super) fn forget_refresh(&mut self, channel: &Arc<str>) {
        let of = self.subscriptions.get_mut(channel);
        if let Some(at) = of.and_then(|subscription| subscription.refresh_at.take()) {
            self.timers.remove(&(at, Timer::SubRefresh(Arc::clone(channel))));
        }
    }
}
