//! How many queries run at once: each takes a core for as long as it runs, and the cores are also
//! there for writes and for agents.

use std::sync::Arc;

use model::{Code, Error, Result};
use tokio::{
    sync::{AcquireError, Semaphore, TryAcquireError},
    task,
};

/// How many queries wait for their turn; further ones are refused.
pub const WAITING_MAX: usize = 64;

/// Runs queries on threads of their own, half as many at once as there are cores.
#[derive(Clone, Debug)]
pub struct Readers {
    at_once: usize,
    /// One permit for each that runs.
    turns: Arc<Semaphore>,
    /// One permit for each that runs or waits.
    places: Arc<Semaphore>,
}

impl Readers {
    /// For a machine with this many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        let at_once = (cores / 2).max(1);
        Self {
            at_once,
            turns: Arc::new(Semaphore::new(at_once)),
            places: Arc::new(Semaphore::new(at_once + WAITING_MAX)),
        }
    }

    /// How many run, and how many wait for their turn.
    pub(crate) fn load(&self) -> (usize, usize) {
        let running = self.at_once - self.turns.available_permits();
        let inside = self.at_once + WAITING_MAX - self.places.available_permits();
        (running, inside.saturating_sub(running))
    }

    /// Runs `work` when it is its turn: it should take its snapshot then, not before. Whoever waits
    /// gets the next turn in the order of arrival. Dropping the future gives the place in the queue
    /// up; work that has begun goes on to its end, and keeps its turn until then.
    ///
    /// # Errors
    /// Those of `work`. [`Code::Overloaded`] at once, when [`WAITING_MAX`] wait already.
    /// [`Code::Internal`], when `work` has panicked.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|e| match e {
            TryAcquireError::NoPermits => overloaded(),
            TryAcquireError::Closed => ended(e),
        })?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|e: AcquireError| ended(e))?;
        let running = task::spawn_blocking(move || {
            let _until_done = (place, turn);
            work()
        });
        running.await.unwrap_or_else(|cause| Err(ended(cause)))
    }
}

fn overloaded() -> Error {
    let message = format!("{WAITING_MAX} queries wait for their turn already");
    let hint = "try again in a few seconds; queries that name a value of an indexed field are \
                the quickest";
    Error::new(Code::Overloaded, message).hint(hint)
}

fn ended(cause: impl std::fmt::Display) -> Error {
    Error::new(Code::Internal, "the query has ended unexpectedly").cause(cause)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::JoinSet;

    use super::*;

    /// Lets the tasks run until this many more queries would be taken on.
    async fn until_free(readers: &Readers, places: usize) {
        for _ in 0..10_000 {
            if readers.places.available_permits() == places {
                return;
            }
            task::yield_now().await;
        }
        panic!("{} places are free, not {places}", readers.places.available_permits());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_who_leaves_it_makes_room() {
        let readers = Readers::new(3);
        let (open, gate) = mpsc::channel::<()>();
        let mut tasks = JoinSet::new();
        let run = |work: Box<dyn FnOnce() -> Result<usize> + Send>| {
            let readers = readers.clone();
            async move { readers.run(work).await }
        };
        tasks.spawn(run(Box::new(move || {
            gate.recv().unwrap();
            Ok(0)
        })));
        let mut last = None;
        for n in 1..=WAITING_MAX {
            last = Some(tasks.spawn(run(Box::new(move || Ok(n)))));
        }
        until_free(&readers, 0).await;
        let refused = readers.run(|| Ok(())).await.unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        assert!(refused.hint.is_some());
        last.unwrap().abort();
        until_free(&readers, 1).await;
        tasks.spawn(run(Box::new(|| Ok(100))));
        until_free(&readers, 0).await;
        open.send(()).unwrap();
        let mut sum = 0;
        while let Some(done) = tasks.join_next().await {
            sum += done.map_or(0, |found| found.unwrap());
        }
        assert_eq!(sum, (1..WAITING_MAX).sum::<usize>() + 100);
        until_free(&readers, WAITING_MAX + 1).await;
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_query_alone() {
        let readers = Readers::new(1);
        let error = readers.run(|| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert_eq!(readers.run(|| Ok(7)).await, Ok(7));
    }
}
