//! How long it takes until somebody answers: ICMP echo from a socket inside a namespace.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use hostnet::Namespace;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
    },
};

use crate::Failure;

/// How often it is asked.
const EVERY: Duration = Duration::from_micros(200);
/// How long it is asked for.
const LIMIT: Duration = Duration::from_secs(10);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Answers that come at all come after less than this.
const STEADY: Duration = Duration::from_millis(100);
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IDENTIFIER: [u8; 2] = *b"nl";

/// A raw ICMP socket in a namespace.
pub(crate) struct Pinger(OwnedFd);

impl Pinger {
    /// Opens the socket; it stays in the namespace, whoever uses it.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Failure> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = namespace
            .run_in(|| socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp))??;
        Ok(Self(raw))
    }

    /// Asks each millisecond, so often before and so often after `change`; the longest time between
    /// two answers.
    ///
    /// # Errors
    /// That of `change`, nothing comes back, or the socket fails.
    pub(crate) fn longest_gap(
        &self,
        to: Ipv4Addr,
        [before, after]: [u32; 2],
        change: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Duration, Failure> {
        let mut answers = Vec::new();
        self.ask_often(to, before, &mut answers)?;
        change()?;
        self.ask_often(to, after, &mut answers)?;
        let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
        let tail = answers.last().map_or(LIMIT, Instant::elapsed);
        match gaps.max() {
            Some(gap) if tail < STEADY => Ok(gap),
            _ => Err(format!("{to} does not answer any more").into()),
        }
    }

    fn ask_often(
        &self,
        to: Ipv4Addr,
        count: u32,
        answers: &mut Vec<Instant>,
    ) -> Result<(), Failure> {
        for _ in 0..count {
            let next = Instant::now() + MILLISECOND;
            self.ask(to)?;
            while Instant::now() < next {
                if self.has_reply(to)? {
                    answers.push(Instant::now());
                }
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// Waits until `to` answers for the first time.
    ///
    /// # Errors
    /// It does not within ten seconds, or the socket fails.
    pub(crate) fn first_reply(&self, to: Ipv4Addr) -> Result<(), Failure> {
        let start = Instant::now();
        let mut asked: Option<Instant> = None;
        while start.elapsed() < LIMIT {
            if asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
                self.ask(to)?;
                asked = Some(Instant::now());
            }
            if self.has_reply(to)? {
                return Ok(());
            }
            // Not a sleep: a timer is coarser than what is measured.
            thread::yield_now();
        }
        Err(format!("{to} does not answer within {} s", LIMIT.as_secs()).into())
    }

    /// Waits until none of these answers any more, and says when the last answer came; now, if there was
    /// none.
    ///
    /// # Errors
    /// One answers for ten seconds, or the socket fails.
    pub(crate) fn last_reply(&self, of: &[Ipv4Addr]) -> Result<Instant, Failure> {
        let start = Instant::now();
        let (mut last, mut next) = (start, start);
        while last.elapsed() < STEADY {
            if start.elapsed() > LIMIT {
                return Err(format!("an answer still comes after {} s", LIMIT.as_secs()).into());
            }
            if Instant::now() >= next {
                for to in of {
                    self.ask(*to)?;
                }
                next = Instant::now() + EVERY;
            }
            while let Some(from) = self.replied()? {
                if of.contains(&from) {
                    last = Instant::now();
                }
            }
            thread::yield_now();
        }
        Ok(last)
    }

    fn ask(&self, to: Ipv4Addr) -> io::Result<()> {
        let [a, b, c, d] = to.octets();
        let target = SockaddrIn::new(a, b, c, d, 0);
        match sendto(self.0.as_raw_fd(), &request(), &target, MsgFlags::empty()) {
            // The device may still be on its way up: asked again.
            Ok(_)
            | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether a reply waits; those of others, and our own requests, are read and dropped.
    fn has_reply(&self, from: Ipv4Addr) -> io::Result<bool> {
        Ok(self.replied()? == Some(from))
    }

    /// Whose reply is next. What is none has no address.
    fn replied(&self) -> io::Result<Option<Ipv4Addr>> {
        let mut buffer = [0; 128];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(bytes) => Ok(Some(replier(&buffer[..bytes]).unwrap_or(Ipv4Addr::UNSPECIFIED))),
            Err(Errno::EAGAIN | Errno::EHOSTUNREACH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// RFC 792: type, code, checksum, identifier, sequence number.
fn request() -> [u8; 8] {
    let [i, j] = IDENTIFIER;
    let sum = !(u16::from_be_bytes([ECHO_REQUEST, 0]) + u16::from_be_bytes(IDENTIFIER));
    let [high, low] = sum.to_be_bytes();
    [ECHO_REQUEST, 0, high, low, i, j, 0, 0]
}

/// Who sent an IPv4 packet, if it is a reply to us.
fn replier(packet: &[u8]) -> Option<Ipv4Addr> {
    let icmp = packet.get(usize::from(packet.first()? & 0x0f) * 4..)?;
    let is_reply = icmp.first() == Some(&ECHO_REPLY) && icmp.get(4..6) == Some(&IDENTIFIER);
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    is_reply.then(|| from.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_request_is_right() {
        let words = request();
        let words = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        assert_eq!(words.sum::<u32>(), 0xffff);
    }

    #[test]
    fn only_replies_to_us_count() {
        let from = Ipv4Addr::new(10, 0, 0, 2);
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&from.octets());
        packet.extend([ECHO_REPLY, 0, 0, 0, b'n', b'l', 0, 0]);
        assert_eq!(replier(&packet), Some(from));
        packet[20] = ECHO_REQUEST;
        assert_eq!(replier(&packet), None);
        packet[20] = ECHO_REPLY;
        packet[24] = 0;
        assert_eq!(replier(&packet), None);
        assert_eq!(replier(&[]), None);
    }
}
