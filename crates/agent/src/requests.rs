//! Answers what guests ask by TCP and UDP: metadata and names (crate `guest`). Here it gets the frames
//! that the programs hand over, the way back, and the objects that answers are made of.
//!
//! It is beside all else: nothing waits for it, and what it cannot do keeps no port from being in
//! effect.

use std::{
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
};

use dataplane::{Answers, HandedFrame, Questions};
use guest::{Handed, Refusal, Shared};
use imbl::ordmap::DiffItem;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use wire::{holding::Holding, object::ObjectKey, shared};

use crate::state::Desired;

/// Frames that may wait to be answered. Beyond, they are lost, as they are where the programs leave them.
const FRAMES_WAIT_MAX: usize = 256;
/// Objects that are taken up before guests are answered again.
const CHANGES_AT_ONCE: usize = 1000;

/// Where guests ask, and the way back.
pub(crate) type Desk = (Questions, Answers);

/// Answers guests until told to stop, at the newest desk.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    desired: watch::Receiver<Option<Desired>>,
    desks: mpsc::Receiver<Desk>,
    stop: CancellationToken,
) {
    let (waiting, frames) = mpsc::channel(FRAMES_WAIT_MAX);
    let answers = Arc::new(Mutex::new(None::<Answers>));
    let newest = Arc::clone(&answers);
    let deliver = move |ifindex: u32, frame: &[u8]| {
        let mut answers = newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = answers.as_mut().map(|answers| answers.send(ifindex, frame)) {
            tracing::debug!(ifindex, %error, "a guest's answer is lost");
        }
    };
    let own = Arc::clone(&shared);
    let handed = move |handed| {
        // A guest sends again what is lost.
        if waiting.try_send(handed).is_err() {
            own.count(Refusal::Full);
        }
    };
    let work = async {
        tokio::join!(
            follow(&shared, desired),
            hand_over(desks, &answers, handed),
            guest::serve(Arc::clone(&shared), frames, deliver, stop.clone()),
        );
    };
    stop.run_until_cancelled(work).await;
}

/// Tells them what changes.
async fn follow(shared: &Shared, mut desired: watch::Receiver<Option<Desired>>) {
    let mut before = Arc::<Holding>::default();
    loop {
        let after = desired.borrow_and_update().as_ref().map(|it| Arc::clone(&it.holding));
        // Without a known desired state they are told what they were told before.
        if let Some(after) = after {
            for some in changes(&before, &after).chunks(CHANGES_AT_ONCE) {
                shared.change(|directory| {
                    some.iter().for_each(|(key, object)| directory.set(*key, object.as_ref()));
                });
                tokio::task::yield_now().await;
            }
            before = after;
        }
        if desired.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What is another object in `after`, or none.
fn changes(before: &Holding, after: &Holding) -> Vec<(ObjectKey, Option<shared::Shared>)> {
    let diff = before.objects().diff(after.objects());
    let changes = diff.map(|item| match item {
        DiffItem::Add(key, object) => (*key, Some(object.clone())),
        DiffItem::Update { new: (key, object), .. } => (*key, Some(object.clone())),
        DiffItem::Remove(key, _) => (*key, None),
    });
    changes.collect()
}

/// Takes frames as they come.
async fn hand_over(
    mut desks: mpsc::Receiver<Desk>,
    answers: &Mutex<Option<Answers>>,
    handed: impl Fn(Handed),
) {
    let mut requests = None;
    loop {
        // Neither loses anything when the other is faster.
        tokio::select! {
            Some((questions, back)) = desks.recv() => {
                *answers.lock().unwrap_or_else(PoisonError::into_inner) = Some(back);
                requests = readable(questions)
                    .inspect_err(|error| {
                        tracing::error!(%error, "guests get neither metadata nor names");
                    })
                    .ok();
            }
            () = take(&mut requests, &handed) => {}
        }
    }
}

/// Takes what waits, once something does.
async fn take(requests: &mut Option<AsyncFd<Questions>>, handed: &impl Fn(Handed)) {
    let Some(requests) = requests else { return std::future::pending().await };
    let Ok(mut ready) = requests.readable_mut().await else { return std::future::pending().await };
    // All of it, else the descriptor does not tell of it again.
    for HandedFrame { ifindex, port, frame, .. } in ready.get_inner_mut() {
        handed(Handed { port, ifindex, frame });
    }
    ready.clear_ready();
}

/// Something that may be waited for.
pub(crate) fn readable<T: AsRawFd>(inner: T) -> std::io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "`register` is unsafe for values that give their descriptor away while they live; \
                  this one does not, and closes it when dropped"
    )]
    AsyncFd::new(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn guests_are_told_what_changes_and_nothing_else() {
        let (nothing, all) = (Holding::default(), sample::two_networks());
        let added = changes(&nothing, &all);
        assert_eq!(added.len(), all.objects().len());
        assert!(added.iter().all(|(key, object)| all.objects().get(key) == object.as_ref()));
        let removed = changes(&all, &nothing);
        assert!(removed.len() == added.len() && removed.iter().all(|(_, object)| object.is_none()));
        assert!(changes(&all, &all).is_empty());
        let mut fewer = all.clone();
        fewer.remove(&added[0].0);
        assert_eq!(changes(&all, &fewer), [(added[0].0, None)]);
    }
}
