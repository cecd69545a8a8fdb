//! Running transactions: one closure on one state, and a batch that must move to another state.
//!
//! Pure: no engine, no thread.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use model::{Code, Error, Result};

use crate::{
    Change, Committed, LogRecord, Row, Taken, Tx,
    log::{Marks, Writes},
    state::State,
    tx::Finished,
};

/// Most keys that one transaction may write: a security group with 10,000 rules of both types, which is the
/// most that one may have, goes at once.
pub(crate) const MAX_WRITES: usize = 25_000;

/// A caller's closure with its result, whatever the type, so that one queue can hold them all.
pub(crate) trait Work<R: Row>: Send {
    /// Runs the closure; says whether what it did counts.
    fn run(&mut self, tx: &mut Tx<R>) -> bool;
    /// Whatever it returned, this is its answer.
    fn fail(&mut self, error: Error);
    /// Tells the caller.
    fn answer(self: Box<Self>, revision: u64);
}

/// The one [`Work`]: a closure, its last result and the way back to its caller.
pub(crate) struct Submitted<T, F, A> {
    pub(crate) work: F,
    pub(crate) result: Option<Result<T>>,
    pub(crate) reply: A,
}

impl<R, T, F, A> Work<R> for Submitted<T, F, A>
where
    R: Row,
    T: Send,
    F: FnMut(&mut Tx<R>) -> Result<T> + Send,
    A: FnOnce(Result<Committed<T>>) + Send,
{
    fn run(&mut self, tx: &mut Tx<R>) -> bool {
        // A panic drops `tx`, so the store sees none of it; the closure's own state is its affair.
        // Where panics abort, the process ends instead: nothing of the batch is durable then.
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(tx)))
            .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        self.result.insert(result).is_ok()
    }

    fn fail(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>, revision: u64) {
        let lost = || Err(Error::new(Code::Internal, "the transaction was never run"));
        let result = self.result.unwrap_or_else(lost);
        (self.reply)(result.map(|value| Committed { value, revision }));
    }
}

/// A transaction that has run and is not durable yet.
pub(crate) struct Slot<R: Row> {
    pub(crate) work: Box<dyn Work<R>>,
    touched: Marks<R>,
    writes: Writes<R>,
    /// `None`: it wrote nothing, and makes no revision.
    pub(crate) record: Option<LogRecord>,
    pub(crate) changes: Arc<[Change<R>]>,
    /// The one that it made; if it wrote nothing, the one that it saw.
    pub(crate) revision: u64,
}

impl<R: Row> Slot<R> {
    /// Runs `work` on `head`, which is the state that it leaves then. Nobody needs the states in
    /// between: each would keep the nodes that the next one has replaced, which are many.
    pub(crate) fn run(mut work: Box<dyn Work<R>>, head: &mut State<R>) -> Self {
        let mut tx = Tx::new(head);
        let keep = work.run(&mut tx);
        let Finished { touched, writes, changes, after } = tx.finish(head);
        let record = if keep { encode(&writes, after.revision) } else { Ok(None) };
        let record = record.unwrap_or_else(|error| {
            work.fail(error);
            None
        });
        if record.is_some() {
            *head = after;
            return Self { work, touched, writes, record, changes, revision: head.revision };
        }
        let (writes, changes, revision) = (Writes::new(), Arc::from([]), head.revision);
        Self { work, touched, writes, record, changes, revision }
    }

    /// The same writes on another state, in which nothing that it touched has changed. If that is
    /// refused, nothing happens.
    fn reapply(&mut self, head: &mut State<R>) -> Result<(), Taken<R>> {
        if let Some(record) = &mut self.record {
            let mut after = head.clone();
            self.changes = after.apply(&self.writes)?;
            record.revision = after.revision;
            *head = after;
        }
        self.revision = head.revision;
        Ok(())
    }

    fn marks(&self) -> Marks<R> {
        self.writes.marks(&self.changes)
    }
}

/// Nothing to write: `None`.
fn encode<R: Row>(writes: &Writes<R>, revision: u64) -> Result<Option<LogRecord>> {
    if writes.len() > MAX_WRITES {
        let message = format!("one step would write {} keys, {MAX_WRITES} at most", writes.len());
        return Err(Error::new(Code::OperationFailed, message).hint("do it in smaller steps"));
    }
    if writes.len() == 0 {
        return Ok(None);
    }
    let broken = |e| Error::new(Code::Internal, "a row cannot be written as JSON").cause(e);
    writes.encode(revision).map(Some).map_err(broken)
}

/// What other servers have written since a batch ran.
pub(crate) enum Dirty<R: Row> {
    Marks(Marks<R>),
    /// The log was too short to tell.
    Everything,
}

impl<R: Row> Dirty<R> {
    pub(crate) fn nothing() -> Self {
        Dirty::Marks(Marks::<R>::new())
    }

    pub(crate) fn add(&mut self, marks: Marks<R>) {
        if let Dirty::Marks(dirty) = self {
            dirty.extend(marks);
        }
    }

    fn meets(&self, touched: &Marks<R>) -> bool {
        match self {
            Dirty::Marks(dirty) => !dirty.is_disjoint(touched),
            Dirty::Everything => true,
        }
    }
}

/// Moves a batch onto `head`, which others have changed by `dirty`: what touched none of it keeps
/// its result, the rest runs again. What a repeated transaction wrote, before and now, is dirty for
/// the ones behind it. `head` is the state that the batch leaves then.
pub(crate) fn rebase<R: Row>(
    batch: Vec<Slot<R>>,
    head: &mut State<R>,
    mut dirty: Dirty<R>,
) -> Vec<Slot<R>> {
    let mut moved = Vec::with_capacity(batch.len());
    for mut slot in batch {
        let before = slot.marks();
        // Every claim that was taken meanwhile is among the marks; that `reapply` may be refused as
        // well is a safeguard.
        if dirty.meets(&slot.touched) || slot.reapply(head).is_err() {
            dirty.add(before);
            slot = Slot::run(slot.work, head);
            dirty.add(slot.marks());
        }
        moved.push(slot);
    }
    moved
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(Code::Internal, "netloom met a defect of its own; nothing was changed")
        .hint("report it, with the server's log")
        .cause(text.unwrap_or("a panic without a message"))
}
