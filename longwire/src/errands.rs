//! Work that is done beside the shards: calls to other servers, on the thread of the HTTP API.
//!
//! A shard's thread must not be the one that drives another server's connection, so it hands such work over and
//! waits for the outcome. It decides nothing and bounds nothing: who hands work over has a bound of its own.

use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};

/// A piece of work.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way to whoever does the work.
#[derive(Clone)]
pub struct Errands(mpsc::UnboundedSender<Job>);

impl Errands {
    /// The way, and its end, where every job must be run beside the others.
    pub fn new() -> (Errands, mpsc::UnboundedReceiver<Job>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Errands(sender), receiver)
    }

    /// Has `work` done and gives its outcome; `None` if the server is stopping. Work that was begun goes on if
    /// nobody waits for it any more.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::pin(async move {
            // Nobody may be waiting any more.
            let _ = done.send(work.await);
        });
        let is_sent = self.0.send(job).is_ok();
        async move { if is_sent { outcome.await.ok() } else { None } }
    }

    /// As [`run`](Self::run), but work that nobody waits for any more is dropped, begun or not.
    pub fn run_while_wanted<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (mut done, outcome) = oneshot::channel();
        let job: Job = Box::pin(async move {
            let made = tokio::select! {
                biased;
                () = done.closed() => return,
                made = work => made,
            };
            let _ = done.send(made);
        });
        let is_sent = self.0.send(job).is_ok();
        async move { if is_sent { outcome.await.ok() } else { None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outcome_comes_back_from_where_the_work_is_done() {
        let (errands, mut jobs) = Errands::new();
        let outcome = errands.run(async { 7 });
        jobs.recv().await.unwrap().await;
        assert_eq!(outcome.await, Some(7));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_dropped_where_that_is_wanted() {
        let (errands, mut jobs) = Errands::new();
        let (alive, gone) = oneshot::channel::<()>();
        drop(errands.run_while_wanted(async move {
            std::future::pending::<()>().await;
            drop(alive);
        }));
        jobs.recv().await.unwrap().await;
        assert!(gone.await.is_err(), "it was dropped, and what it held");
    }

    #[tokio::test]
    async fn a_server_that_stops_leaves_nobody_waiting() {
        let (errands, jobs) = Errands::new();
        let begun = errands.run(async { 7 });
        drop(jobs);
        assert_eq!(begun.await, None);
        assert_eq!(errands.run(async { 7 }).await, None);
    }
}
