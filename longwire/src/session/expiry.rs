//! When a connection or a subscription ends, and who prolongs it before that.
//!
//! What a token grants is prolonged by the client with another token, for which it has some grace after the time has
//! come. What a webhook grants is prolonged by the backend, which is asked when the time has come; while the question
//! is open nothing ends. A plain struct: the time is an argument.

use std::time::{Duration, Instant};

/// When something ends, and who prolongs it.
#[derive(Clone, Debug, Default)]
pub struct Expiry {
    at: Option<Instant>,
    renewer: Renewer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Renewer {
    #[default]
    Client,
    Backend,
    /// The backend, and it was asked.
    Asked,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Ask the backend, and call [`Expiry::set`] when it has answered.
    Ask,
    /// It is over.
    End,
}

impl Expiry {
    /// Sets when it ends, which also answers the question whether it is prolonged.
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
        if self.renewer == Renewer::Asked {
            self.renewer = Renewer::Backend;
        }
    }

    /// When it ends; `None` if it does not.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Notes that the backend prolongs it.
    pub fn leave_to_backend(&mut self) {
        self.renewer = Renewer::Backend;
    }

    /// Whether the backend prolongs it.
    pub fn is_left_to_backend(&self) -> bool {
        self.renewer != Renewer::Client
    }

    /// The next time at which something is due.
    pub fn deadline(&self, grace: Duration) -> Option<Instant> {
        match self.renewer {
            Renewer::Client => self.at.map(|at| at + grace),
            Renewer::Backend => self.at,
            Renewer::Asked => None,
        }
    }

    /// What is due at `now`; a question is asked once.
    pub fn handle_timeout(&mut self, now: Instant, grace: Duration) -> Option<Due> {
        self.deadline(grace).filter(|deadline| *deadline <= now)?;
        match self.renewer {
            Renewer::Client => Some(Due::End),
            Renewer::Backend => {
                self.renewer = Renewer::Asked;
                Some(Due::Ask)
            }
            Renewer::Asked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(25);

    #[test]
    fn what_the_client_prolongs_ends_after_its_grace() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        assert_eq!((expiry.deadline(GRACE), expiry.handle_timeout(start, GRACE)), (None, None));
        expiry.set(Some(start));
        assert_eq!(expiry.handle_timeout(start, GRACE), None);
        assert_eq!(expiry.deadline(GRACE), Some(start + GRACE));
        assert_eq!(expiry.handle_timeout(start + GRACE, GRACE), Some(Due::End));
    }

    #[test]
    fn what_the_backend_prolongs_is_asked_about_once_and_does_not_end_meanwhile() {
        let start = Instant::now();
        let mut expiry = Expiry::default();
        expiry.leave_to_backend();
        expiry.set(Some(start));
        assert_eq!(expiry.deadline(GRACE), Some(start));
        assert_eq!(expiry.handle_timeout(start, GRACE), Some(Due::Ask));
        let later = start + Duration::from_secs(3600);
        assert_eq!((expiry.deadline(GRACE), expiry.handle_timeout(later, GRACE)), (None, None));
        expiry.set(Some(later));
        assert!(expiry.is_left_to_backend());
        assert_eq!(expiry.handle_timeout(start, GRACE), None);
        assert_eq!(expiry.handle_timeout(later, GRACE), Some(Due::Ask));
        expiry.set(None);
        assert_eq!(expiry.deadline(GRACE), None);
    }
}
