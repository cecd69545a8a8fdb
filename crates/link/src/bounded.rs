//! gRPC calls whose messages are no longer than their connection may send.
//!
//! tonic has one limit for all methods and makes room for a message as soon as it knows its length.
//! Here that length is read first, in front of it: gRPC's "Length-Prefixed-Message" is a byte that
//! says whether it is compressed and four for the length, big-endian.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
    server::NamedService,
};

use crate::guest::{ConnectionInfo, Guest};

/// A service with such calls.
#[derive(Clone)]
pub(crate) struct Bounded<S>(pub(crate) S);

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Bounded<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let connection = request.extensions().get::<ConnectionInfo>();
        let guest = connection.map(|connection| Arc::clone(connection.get_ref()));
        let request = request.map(|body| match guest {
            Some(guest) => Body::new(Measured { body, guest, lengths: Lengths::default() }),
            // Not over a connection of ours.
            None => Body::empty(),
        });
        self.0.call(request)
    }
}

/// A call's body, which ends with an error before a message that is too long.
struct Measured {
    body: Body,
    guest: Arc<Guest>,
    lengths: Lengths,
}

impl tonic::codegen::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            let bytes_max = self.guest.message_bytes_max();
            if let Err(bytes) = self.lengths.pass(data, bytes_max) {
                let text = format!("a message of {bytes} bytes, where {bytes_max} are taken");
                return Poll::Ready(Some(Err(Status::resource_exhausted(text))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Where in a sequence of messages it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lengths {
    prefix: [u8; 5],
    /// Bytes of the prefix that are there.
    known: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Lengths {
    /// Takes what comes next. Gives the length of a message that is longer than `bytes_max`.
    fn pass(&mut self, mut data: &[u8], bytes_max: usize) -> Result<(), usize> {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data = data.get(taken..).unwrap_or_default();
                continue;
            }
            if let Some(byte) = self.prefix.get_mut(self.known) {
                *byte = *first;
            }
            self.known += 1;
            data = rest;
            if self.known == self.prefix.len() {
                let [_, a, b, c, d] = self.prefix;
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d]));
                (self.known, self.left) = (0, length.unwrap_or(usize::MAX));
                if self.left > bytes_max {
                    return Err(self.left);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: u32) -> Vec<u8> {
        let prefix = [&[0][..], &bytes.to_be_bytes()].concat();
        [prefix, vec![7; bytes as usize]].concat()
    }

    #[test]
    fn messages_are_measured_however_they_are_cut_into_pieces() {
        let fit = [message(0), message(10), message(3)].concat();
        let too_long = [fit.clone(), message(11)].concat();
        for size in 1..=too_long.len() {
            let judge = |bytes: &[u8]| {
                let mut lengths = Lengths::default();
                bytes.chunks(size).try_for_each(|piece| lengths.pass(piece, 10))
            };
            assert_eq!(judge(&fit), Ok(()), "pieces of {size}");
            assert_eq!(judge(&too_long), Err(11), "pieces of {size}");
            let prefix_only = &too_long[..fit.len() + 5];
            assert_eq!(judge(prefix_only), Err(11), "before anything of it is taken");
        }
    }
}
