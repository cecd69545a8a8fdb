//! What is known of the ways to other VTEPs, and whom to ask next. Time is passed in.
//!
//! Each way is asked with a short packet and with one as long as tunnels may send. A way is blocked
//! once three in a row were not answered. Whether what was lost was lost on its way there or back is
//! seen by what comes from there unasked: the other host asks too.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use wire::paths::{BlockedPath, Direction, Paths};

use super::probe::{Kind, Probe, SHORT_BYTES};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// So many in a row that are not answered make a way blocked.
const LOSSES: u32 = 3;
/// How often each way is asked, at most.
const EVERY: Duration = Duration::from_secs(5);
/// So many ways are asked in a second, at most: a host with more peers asks each less often.
const RATE: u32 = 10;
/// So many answers that one peer gets in a second: more than it asks for.
const ANSWERS_MAX: u32 = 16;
/// How long nothing is told at first while something is not known.
const PATIENCE: Duration = Duration::from_secs(30);
/// Blocked ways that are told of, at most.
const TOLD_MAX: usize = 128;

/// From an own VTEP to another one.
pub(crate) type Ends = (IpAddr, IpAddr);

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) ends: Ends,
    pub(crate) probe: Probe,
}

/// Packets of one length on a way.
#[derive(Debug, Default)]
struct Track {
    bytes: u32,
    asked: Option<(u64, Instant)>,
    /// Not answered since the last answer, and when the first of these was asked.
    losses: u32,
    lost_since: Option<Instant>,
    /// It was, once.
    answered: bool,
    /// When the other end has last asked with as long a packet.
    heard: Option<Instant>,
}

impl Track {
    fn is_blocked(&self) -> bool {
        self.losses >= LOSSES
    }

    fn is_known(&self) -> bool {
        self.answered || self.is_blocked()
    }

    /// What was asked then was not answered.
    fn lose(&mut self, asked: Instant) {
        self.losses = self.losses.saturating_add(1);
        self.lost_since.get_or_insert(asked);
    }

    /// On which way it is lost: what has come from there since then shows that that way is open.
    fn direction(&self, now: Instant, window: Duration) -> Direction {
        let heard = self.heard.filter(|heard| self.lost_since.is_some_and(|since| *heard > since));
        match heard.is_some_and(|heard| now.saturating_duration_since(heard) < window) {
            true => Direction::There,
            false => Direction::Back,
        }
    }
}

#[derive(Debug)]
struct Path {
    short: Track,
    long: Track,
    next: Instant,
    /// Answers that it has had since then.
    answers: (Instant, u32),
}

/// All ways.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    paths: BTreeMap<Ends, Path>,
    /// Where the next look begins.
    after: Option<Ends>,
    /// When there were ways first, and whether something was told since.
    since: Option<Instant>,
    is_settled: bool,
}

impl Ways {
    /// These are the ways from now on, each with the length of the longest packet in bytes.
    pub(crate) fn set(&mut self, wanted: &BTreeMap<Ends, u32>, now: Instant) {
        self.paths.retain(|ends, _| wanted.contains_key(ends));
        self.since.get_or_insert(now);
        for (ends, bytes) in wanted {
            let new = || Path {
                short: Track { bytes: SHORT_BYTES, ..Track::default() },
                long: Track::default(),
                next: now,
                answers: (now, 0),
            };
            let path = self.paths.entry(*ends).or_insert_with(new);
            if path.long.bytes != *bytes {
                path.long = Track { bytes: *bytes, ..Track::default() };
                path.next = now;
            }
        }
    }

    /// How often each way is asked.
    fn every(&self) -> Duration {
        let paths = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        EVERY.max(Duration::from_secs(1) * paths / RATE)
    }

    /// What is to be sent now, to `most` peers at most. `number` gives numbers.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        most: usize,
        mut number: impl FnMut() -> u64,
    ) -> Vec<Sending> {
        let every = self.every();
        let mut sendings = Vec::new();
        // Whoever had to wait the last time comes first.
        let first = self.after.take();
        let is_later = |ends: &Ends| first.is_none_or(|first| *ends >= first);
        let (mut order, earlier): (Vec<Ends>, Vec<Ends>) =
            self.paths.keys().copied().partition(is_later);
        order.extend(earlier);
        let mut asked = 0;
        for ends in order {
            let Some(path) = self.paths.get_mut(&ends).filter(|path| path.next <= now) else {
                continue;
            };
            if asked == most {
                self.after = Some(ends);
                break;
            }
            asked += 1;
            let mut is_urgent = false;
            for track in [&mut path.short, &mut path.long] {
                if let Some((_, at)) = track.asked.take() {
                    track.lose(at);
                    is_urgent |= track.losses < LOSSES;
                }
                is_urgent |= !track.is_known();
                let probe = Probe { kind: Kind::Ask, bytes: track.bytes, number: number() };
                track.asked = Some((probe.number, now));
                sendings.push(Sending { ends, probe });
            }
            path.next = now + if is_urgent { ANSWER_WAIT } else { every };
        }
        sendings
    }

    /// One could not be sent from here: that says nothing of the way.
    pub(crate) fn unsent(&mut self, sending: &Sending) {
        let Some(path) = self.paths.get_mut(&sending.ends) else { return };
        for track in [&mut path.short, &mut path.long] {
            if track.asked.is_some_and(|(number, _)| number == sending.probe.number) {
                track.asked = None;
            }
        }
    }

    /// A probe has come from a VTEP; gives the answer to be sent. Only those answer and are answered
    /// to which there is a way, and only so often.
    pub(crate) fn heard(&mut self, from: IpAddr, probe: Probe, now: Instant) -> Vec<Sending> {
        let mut answers = Vec::new();
        for (ends, path) in self.paths.iter_mut().filter(|((_, to), _)| *to == from) {
            match probe.kind {
                Kind::Answer => path.answered(probe),
                Kind::Ask => {
                    if path.asked(probe, now) && answers.is_empty() {
                        let probe = Probe { kind: Kind::Answer, ..probe };
                        answers.push(Sending { ends: *ends, probe });
                    }
                }
            }
        }
        answers
    }

    /// What is known; ways that work are only counted. At first nothing is told until something is
    /// known of each, or for so long: whoever tells, answers.
    pub(crate) fn told(&mut self, now: Instant, port: u16) -> Option<Paths> {
        let window = self.every() * 3;
        for path in self.paths.values_mut() {
            path.expire(now);
        }
        let known = self.paths.values().filter(|path| path.short.is_known()).count();
        let is_late =
            self.since.is_none_or(|since| now.saturating_duration_since(since) > PATIENCE);
        self.is_settled |= known == self.paths.len() || is_late;
        if !self.is_settled {
            return None;
        }
        let blocked = self.paths.iter().filter_map(|((own, peer), path)| {
            let (lost, passes) = match (path.short.is_blocked(), path.long.is_blocked()) {
                (true, _) => (&path.short, 0),
                (false, true) => (&path.long, path.short.bytes),
                (false, false) => return None,
            };
            Some(BlockedPath {
                own: *own,
                peer: *peer,
                direction: lost.direction(now, window),
                port,
                passes_bytes: passes,
                lost_bytes: lost.bytes,
            })
        });
        let blocked: Vec<BlockedPath> = blocked.take(TOLD_MAX).collect();
        let probed = u32::try_from(known).unwrap_or(u32::MAX);
        Some(Paths { probed, blocked })
    }
}

impl Path {
    /// What was not answered in time is lost, though it is not asked again yet.
    fn expire(&mut self, now: Instant) {
        for track in [&mut self.short, &mut self.long] {
            let is_late = |at: Instant| now.saturating_duration_since(at) > ANSWER_WAIT;
            if let Some((_, at)) = track.asked.take_if(|(_, at)| is_late(*at)) {
                track.lose(at);
                if track.losses < LOSSES {
                    self.next = self.next.min(now);
                }
            }
        }
    }

    fn answered(&mut self, probe: Probe) {
        for track in [&mut self.short, &mut self.long] {
            let is_it = track.asked.is_some_and(|(number, _)| number == probe.number);
            if is_it && track.bytes == probe.bytes {
                (track.asked, track.losses, track.lost_since) = (None, 0, None);
                track.answered = true;
            }
        }
    }

    /// The other end has asked; says whether it is answered.
    fn asked(&mut self, probe: Probe, now: Instant) -> bool {
        let was_lost = self.short.is_blocked() || self.long.is_blocked();
        for track in [&mut self.short, &mut self.long] {
            // What is longer gets through where this would.
            if probe.bytes >= track.bytes {
                track.heard = Some(now);
            }
        }
        if was_lost {
            // It may be back: that is found out at once.
            self.next = self.next.min(now + ANSWER_WAIT);
        }
        let (since, answers) = &mut self.answers;
        if now.saturating_duration_since(*since) > Duration::from_secs(1) {
            (*since, *answers) = (now, 0);
        }
        *answers += 1;
        *answers <= ANSWERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const STEP: Duration = Duration::from_millis(100);
    const PORT: u16 = 8_472;

    /// Two hosts, and what is lost between them.
    struct World {
        now: Instant,
        hosts: [Ways; 2],
        numbers: u64,
        sent: usize,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self {
                now: Instant::now(),
                hosts: [Ways::default(), Ways::default()],
                numbers: 0,
                sent: 0,
            };
            for (host, ends) in [(0, (ONE, TWO)), (1, (TWO, ONE))] {
                world.hosts[host].set(&[(ends, 1_500)].into(), world.now);
            }
            world
        }

        /// Time passes; `is_lost` says of what is sent from a host, so many bytes, whether it is lost.
        fn run(&mut self, seconds: u32, is_lost: impl Fn(usize, u32) -> bool) {
            for _ in 0..seconds * 10 {
                self.now += STEP;
                for host in [0, 1] {
                    let numbers = &mut self.numbers;
                    let due = self.hosts[host].due(self.now, 2, || {
                        *numbers += 1;
                        *numbers
                    });
                    self.sent += due.len();
                    self.hosts[host].told(self.now, PORT);
                    for sending in due {
                        if is_lost(host, sending.probe.bytes) {
                            continue;
                        }
                        let from = sending.ends.0;
                        let answers = self.hosts[1 - host].heard(from, sending.probe, self.now);
                        for answer in answers {
                            assert!(answer.probe.bytes <= sending.probe.bytes);
                            if !is_lost(1 - host, answer.probe.bytes) {
                                let from = answer.ends.0;
                                let more = self.hosts[host].heard(from, answer.probe, self.now);
                                assert_eq!(more, [], "answers are not answered");
                            }
                        }
                    }
                }
            }
        }

        fn blocked(&mut self, host: usize) -> Vec<(Direction, u32, u32)> {
            let told = self.hosts[host].told(self.now, PORT).expect("known by now");
            assert_eq!(told.probed, 1);
            let of = |path: &BlockedPath| (path.direction, path.passes_bytes, path.lost_bytes);
            told.blocked.iter().map(of).collect()
        }
    }

    #[test]
    fn ways_that_work_are_asked_now_and_then() {
        let mut world = World::new();
        assert_eq!(world.hosts[0].told(world.now, PORT), None, "nothing is known yet");
        world.run(1, |_, _| false);
        assert_eq!((world.blocked(0), world.blocked(1)), (vec![], vec![]));
        let sent = world.sent;
        world.run(60, |_, _| false);
        assert!((40..60).contains(&(world.sent - sent)), "{}", world.sent - sent);
    }

    #[test]
    fn both_ends_tell_the_direction_in_which_packets_are_lost_and_that_they_pass_again() {
        let mut world = World::new();
        world.run(4, |from, _| from == 0);
        assert_eq!(world.blocked(0), [(Direction::There, 0, 100)]);
        assert_eq!(world.blocked(1), [(Direction::Back, 0, 100)]);
        world.run(7, |_, _| false);
        assert_eq!((world.blocked(0), world.blocked(1)), (vec![], vec![]));
        // What was heard before does not count.
        world.run(10, |from, _| from == 1);
        assert_eq!(world.blocked(0), [(Direction::Back, 0, 100)]);
        assert_eq!(world.blocked(1), [(Direction::There, 0, 100)]);
    }

    #[test]
    fn an_mtu_that_is_too_small_is_no_blocked_way() {
        let mut world = World::new();
        world.run(4, |from, bytes| from == 1 && bytes > 1_400);
        assert_eq!(world.blocked(0), [(Direction::Back, 100, 1_500)]);
        assert_eq!(world.blocked(1), [(Direction::There, 100, 1_500)]);
    }

    #[test]
    fn strangers_are_not_answered_and_no_peer_without_end() {
        let mut world = World::new();
        let probe = Probe { kind: Kind::Ask, bytes: 1_500, number: 1 };
        let stranger = IpAddr::from([192, 0, 2, 3]);
        assert_eq!(world.hosts[0].heard(stranger, probe, world.now), []);
        let answered =
            (0..1_000).filter(|_| !world.hosts[0].heard(TWO, probe, world.now).is_empty());
        assert_eq!(answered.count(), 16);
        world.now += Duration::from_secs(2);
        assert_eq!(world.hosts[0].heard(TWO, probe, world.now).len(), 1);
    }

    #[test]
    fn a_thousand_peers_cost_as_many_packets_in_a_second_as_a_hundred() {
        let (mut ways, mut now) = (Ways::default(), Instant::now());
        let peer = |at: u16| IpAddr::from([10, 0, at.to_be_bytes()[0], at.to_be_bytes()[1]]);
        ways.set(&(0..1_000).map(|at| ((ONE, peer(at)), 1_500)).collect(), now);
        let (mut sent, mut asked) = (0, std::collections::BTreeSet::new());
        for _ in 0..1_000 {
            now += STEP;
            let due = ways.due(now, 1, || 7);
            asked.extend(due.iter().map(|sending| sending.ends));
            sent += due.len();
            for Sending { ends, probe } in due {
                ways.heard(ends.1, Probe { kind: Kind::Answer, ..probe }, now);
            }
        }
        assert_eq!((asked.len(), sent), (1_000, 2_000), "in 100 s");
    }

    #[test]
    fn what_does_not_leave_the_host_says_nothing_of_the_way() {
        let (mut ways, mut now) = (Ways::default(), Instant::now());
        ways.set(&[((ONE, TWO), 9_000)].into(), now);
        for _ in 0..100 {
            now += STEP;
            for sending in ways.due(now, 2, || 7) {
                ways.unsent(&sending);
            }
            assert_eq!(ways.told(now, PORT), None);
        }
    }
}
