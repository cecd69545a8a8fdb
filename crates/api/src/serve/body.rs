//! A request's body, which must arrive in its time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, body::Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use seats::Seat;
use tokio::time::{Sleep, sleep};

/// A body with a deadline. When the last of it is there, its connection is at work: before that
/// it only waits, and has to make room when connections become scarce.
pub(super) struct Timed {
    body: Incoming,
    seat: Arc<Seat>,
    /// `None` when nothing is to come.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub(super) fn new(body: Incoming, wait: Duration, seat: Arc<Seat>) -> Self {
        let deadline = (!body.is_end_stream()).then(|| Box::pin(sleep(wait)));
        if deadline.is_none() {
            seat.works();
        }
        Self { body, seat, deadline }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time");
            return Poll::Ready(Some(Err(late.into())));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.seat.works();
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
