//! A crash between two requests to the kernel.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Drops its future after so many polls, as if the process had died.
pub(crate) struct Crash<F>(pub(crate) Pin<Box<F>>, pub(crate) usize);

impl<F: Future> Future for Crash<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        self.0.as_mut().poll(context).map(Some)
    }
}
