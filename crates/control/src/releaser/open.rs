//! The releases that are open, and what each of them waits for. No I/O.
//!
//! A release that waits is filed under one of the hosts that it waits for. It is looked at again
//! when that host has reported or is gone. So the work of a pass grows with the number of those
//! hosts and of the releases that became due, not with the number of all releases.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Id,
    resource::{host::Host, release::Release},
    status::Board,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::NAME_AFTER;

/// Which hosts there are.
pub(super) trait Hosts {
    /// Whether this one exists.
    fn exists(&self, host: Id<Host>) -> bool;
    /// All that may have been told anything.
    fn enrolled(&self) -> Vec<Id<Host>>;
}

/// The open releases.
#[derive(Default)]
pub(super) struct Open {
    releases: BTreeMap<Uuid, Known>,
    /// To be looked at.
    fresh: BTreeSet<Uuid>,
    /// Those that wait, under what they wait for.
    waiting: BTreeMap<Wait, BTreeSet<Uuid>>,
    /// How often each host had reported when releases were filed under it.
    heard: BTreeMap<Id<Host>, u64>,
    /// The hosts that releases name, by object: an earlier run of the server wrote them down.
    named: BTreeMap<Uuid, BTreeMap<Id<Host>, usize>>,
    /// Those whose hosts are not written down, the oldest first.
    unnamed: BTreeSet<(Instant, Uuid)>,
    started: bool,
}

struct Known {
    release: Release,
    /// A revision that includes it.
    revision: u64,
    seen: Instant,
    /// An earlier run of the server made it.
    inherited: bool,
    wait: Option<Wait>,
}

/// What a release waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    /// That it is known what this revision changes for hosts.
    Revision(u64),
    /// That this host reports, or is gone.
    Host(Id<Host>),
}

impl Open {
    /// Takes all releases there are. Those of the first snapshot were made by an earlier run of the
    /// server.
    pub(super) fn start_over(
        &mut self,
        releases: impl Iterator<Item = Release>,
        revision: u64,
        now: Instant,
    ) {
        let mut gone: BTreeSet<Uuid> = self.releases.keys().copied().collect();
        for release in releases {
            let uuid = release.uuid.uuid();
            gone.remove(&uuid);
            self.put(release, revision, now);
            if !self.started
                && let Some(known) = self.releases.get_mut(&uuid)
            {
                known.inherited = true;
            }
        }
        gone.into_iter().for_each(|uuid| self.remove(uuid));
        self.started = true;
    }

    /// Takes a release that is new, or whose hosts were written down.
    pub(super) fn put(&mut self, release: Release, revision: u64, now: Instant) {
        let uuid = release.uuid.uuid();
        let before = self.take_out(uuid);
        let (revision, seen, inherited) = before
            .map_or((revision, now, false), |known| (known.revision, known.seen, known.inherited));
        for (object, host) in named(&release) {
            *self.named.entry(object).or_default().entry(host).or_default() += 1;
        }
        if release.hosts.is_none() {
            self.unnamed.insert((seen, uuid));
        }
        let known = Known { release, revision, seen, inherited, wait: None };
        self.releases.insert(uuid, known);
        self.fresh.insert(uuid);
    }

    /// Forgets a release.
    pub(super) fn remove(&mut self, uuid: Uuid) {
        // Releases that waited for a host because this one named it are looked at when that host
        // reports.
        drop(self.take_out(uuid));
    }

    fn take_out(&mut self, uuid: Uuid) -> Option<Known> {
        let known = self.releases.remove(&uuid)?;
        self.fresh.remove(&uuid);
        self.unnamed.remove(&(known.seen, uuid));
        if let Some(wait) = known.wait {
            self.unfile(wait, uuid);
        }
        for (object, host) in named(&known.release) {
            let Some(hosts) = self.named.get_mut(&object) else { continue };
            if let Some(count) = hosts.get_mut(&host) {
                *count -= 1;
                if *count == 0 {
                    hosts.remove(&host);
                }
            }
            if hosts.is_empty() {
                self.named.remove(&object);
            }
        }
        Some(known)
    }

    fn unfile(&mut self, wait: Wait, uuid: Uuid) {
        if let Some(filed) = self.waiting.get_mut(&wait) {
            filed.remove(&uuid);
            if filed.is_empty() {
                self.waiting.remove(&wait);
            }
        }
    }

    /// The releases that wait for no host any more. Each is given again by later calls until it is
    /// removed, because the transaction that deletes it may fail.
    pub(super) fn due(&mut self, board: &Board, hosts: &impl Hosts) -> Vec<Release> {
        self.wake(board, hosts);
        let mut due = Vec::new();
        for uuid in std::mem::take(&mut self.fresh) {
            let Some(known) = self.releases.get(&uuid) else { continue };
            let wait = self.wait_of(known, board, hosts);
            match wait {
                None => {
                    due.push(known.release.clone());
                    self.fresh.insert(uuid);
                }
                Some(wait) => {
                    if let Wait::Host(host) = wait {
                        self.heard.entry(host).or_insert_with(|| board.status(host).heard);
                    }
                    self.waiting.entry(wait).or_default().insert(uuid);
                }
            }
            if let Some(known) = self.releases.get_mut(&uuid) {
                known.wait = wait;
            }
        }
        due
    }

    /// Looks again at what waited for something that has happened.
    fn wake(&mut self, board: &Board, hosts: &impl Hosts) {
        let happened = |wait: &Wait| match wait {
            Wait::Revision(revision) => board.revision >= *revision,
            Wait::Host(host) => {
                !hosts.exists(*host) || self.heard.get(host) != Some(&board.status(*host).heard)
            }
        };
        let over: Vec<Wait> = self.waiting.keys().copied().filter(happened).collect();
        for wait in over {
            if let Wait::Host(host) = wait {
                self.heard.remove(&host);
            }
            self.fresh.extend(self.waiting.remove(&wait).unwrap_or_default());
        }
    }

    /// What a release waits for, if anything.
    fn wait_of(&self, known: &Known, board: &Board, hosts: &impl Hosts) -> Option<Wait> {
        if board.revision < known.revision {
            return Some(Wait::Revision(known.revision));
        }
        self.in_the_way(known, board, hosts).next().map(Wait::Host)
    }

    /// The hosts that a release waits for.
    fn in_the_way<'a>(
        &'a self,
        known: &'a Known,
        board: &'a Board,
        hosts: &'a impl Hosts,
    ) -> impl Iterator<Item = Id<Host>> + 'a {
        let objects = &known.release.objects;
        let unsettled = objects.iter().flat_map(|object| board.unsettled(*object));
        let told = objects.iter().filter_map(|object| self.named.get(object));
        let told = told.flat_map(|hosts| hosts.keys().copied());
        let own = known.release.hosts.iter().flatten().copied();
        // It is not known which hosts were told of it: it may have been any.
        let is_unknown = known.inherited || known.revision <= board.first;
        let is_unknown = is_unknown && known.release.hosts.is_none();
        let any = is_unknown.then(|| hosts.enrolled()).into_iter().flatten();
        let any = any.chain(board.forgetful(known.revision));
        let unconfirmed = |host: &Id<Host>| !board.status(*host).confirmed;
        let earlier = told.chain(own).chain(any).filter(unconfirmed);
        unsettled.chain(earlier).filter(|host| hosts.exists(*host))
    }

    /// When the oldest release was made whose hosts are not written down.
    pub(super) fn oldest_unnamed(&self) -> Option<Instant> {
        self.unnamed.first().map(|(seen, _)| *seen)
    }

    /// Releases that have been open for [`NAME_AFTER`] and whose hosts are not written down, with these.
    pub(super) fn to_name(
        &self,
        board: &Board,
        hosts: &impl Hosts,
        now: Instant,
    ) -> Vec<(Uuid, Vec<Id<Host>>)> {
        let old =
            self.unnamed.iter().take_while(|(seen, _)| now.duration_since(*seen) >= NAME_AFTER);
        old.filter_map(|(_, uuid)| {
            let known = self.releases.get(uuid)?;
            let hosts: BTreeSet<Id<Host>> = self.in_the_way(known, board, hosts).collect();
            // Before that revision is compiled the hosts are not known. A release that waits for no
            // host is being deleted.
            let is_known = board.revision >= known.revision && !hosts.is_empty();
            is_known.then(|| (*uuid, hosts.into_iter().collect()))
        })
        .collect()
    }
}

/// The objects of a release, with each host that it names.
fn named(release: &Release) -> impl Iterator<Item = (Uuid, Id<Host>)> + '_ {
    let hosts = release.hosts.iter().flatten();
    hosts.flat_map(|host| release.objects.iter().map(|object| (*object, *host)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{
        Timestamp,
        status::{HostStatus, Pending},
    };

    use super::*;

    const NIC: u128 = 10;
    const NETWORK: u128 = 20;

    /// These hosts exist, and are enrolled.
    struct These(&'static [u128]);

    impl Hosts for These {
        fn exists(&self, host: Id<Host>) -> bool {
            self.0.contains(&host.uuid().as_u128())
        }

        fn enrolled(&self) -> Vec<Id<Host>> {
            self.0.iter().map(|number| host(*number)).collect()
        }
    }

    fn host(number: u128) -> Id<Host> {
        Id::new(Uuid::from_u128(number))
    }

    fn release(number: u128, objects: &[u128], hosts: Option<&[u128]>) -> Release {
        Release {
            uuid: Id::new(Uuid::from_u128(number)),
            objects: objects.iter().copied().map(Uuid::from_u128).collect(),
            claims: Vec::new(),
            hosts: hosts.map(|hosts| hosts.iter().copied().map(host).collect()),
            create_date: Timestamp(0),
        }
    }

    fn board(revision: u64) -> Board {
        let mut board = Board::default();
        board.revision = revision;
        board
    }

    /// Host `number` was told at revision 5 of these objects, and has confirmed nothing since.
    fn told(board: &mut Board, number: u128, objects: &[u128]) {
        let pending = Pending { since: 5, last: 5 };
        let open = objects.iter().map(|object| (Uuid::from_u128(*object), pending));
        let mut status = board.status(host(number)).clone();
        status.pending.extend(open);
        board.put(host(number), status);
    }

    fn confirmed(board: &mut Board, number: u128) {
        let heard = board.status(host(number)).heard + 1;
        board.put(host(number), HostStatus { confirmed: true, heard, ..HostStatus::default() });
    }

    fn due(open: &mut Open, board: &Board, hosts: &These) -> Vec<u128> {
        open.due(board, hosts).iter().map(|release| release.uuid.uuid().as_u128()).collect()
    }

    /// A server that was started when these releases were open.
    fn started(releases: &[Release]) -> Open {
        let mut open = Open::default();
        open.start_over(releases.iter().cloned(), 4, Instant::now());
        open
    }

    #[test]
    fn a_release_waits_until_its_revision_is_compiled_and_its_objects_are_settled() {
        let (mut open, hosts) = (started(&[]), These(&[1, 2]));
        open.put(release(1, &[NIC, NETWORK], None), 5, Instant::now());
        assert_eq!(due(&mut open, &board(4), &hosts), []);
        let mut board = board(5);
        told(&mut board, 1, &[NIC]);
        told(&mut board, 2, &[NETWORK]);
        assert_eq!(due(&mut open, &board, &hosts), []);
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), []);
        confirmed(&mut board, 2);
        assert_eq!(due(&mut open, &board, &hosts), [1]);
        assert_eq!(due(&mut open, &board, &hosts), [1], "until it is gone");
        open.remove(Uuid::from_u128(1));
        assert_eq!(due(&mut open, &board, &hosts), []);
    }

    #[test]
    fn what_no_host_was_told_of_is_due_at_once_whatever_else_hosts_do() {
        let (mut open, mut board) = (started(&[]), board(5));
        told(&mut board, 1, &[77]);
        open.put(release(1, &[NIC, NETWORK], None), 5, Instant::now());
        assert_eq!(due(&mut open, &board, &These(&[1, 2])), [1]);
    }

    #[test]
    fn a_host_that_was_deleted_is_not_waited_for() {
        let (mut open, mut board) = (started(&[]), board(5));
        told(&mut board, 1, &[NIC]);
        open.put(release(1, &[NIC], None), 5, Instant::now());
        assert_eq!(due(&mut open, &board, &These(&[1])), []);
        assert_eq!(due(&mut open, &board, &These(&[])), [1]);
    }

    #[test]
    fn after_a_restart_the_hosts_that_were_written_down_have_to_confirm() {
        let (mut open, hosts) = (started(&[release(1, &[NIC], Some(&[1]))]), These(&[1, 2]));
        let mut board = board(5);
        confirmed(&mut board, 2);
        assert_eq!(due(&mut open, &board, &hosts), []);
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), [1]);
    }

    #[test]
    fn after_a_crash_before_hosts_were_written_down_every_host_has_to_confirm() {
        let (mut open, hosts) = (started(&[release(1, &[NIC], None)]), These(&[1, 2]));
        let mut board = board(5);
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), []);
        let later = Instant::now() + NAME_AFTER;
        assert_eq!(open.to_name(&board, &hosts, later), [(Uuid::from_u128(1), vec![host(2)])]);
        confirmed(&mut board, 2);
        assert_eq!(due(&mut open, &board, &hosts), [1]);
    }

    #[test]
    fn a_host_that_left_a_network_in_an_earlier_life_holds_its_vni_too() {
        let (mut open, hosts) = (started(&[release(1, &[NIC, NETWORK], Some(&[1]))]), These(&[1]));
        let mut board = board(6);
        open.put(release(2, &[NETWORK], None), 6, Instant::now());
        assert_eq!(due(&mut open, &board, &hosts), [], "nobody was told of it in this life");
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), [1, 2]);
    }

    #[test]
    fn what_was_released_before_the_server_saw_its_first_state_waits_for_every_host() {
        let (mut open, hosts) = (started(&[]), These(&[1]));
        let mut board = board(9);
        board.first = 7;
        open.put(release(1, &[NIC], None), 7, Instant::now());
        open.put(release(2, &[NIC], None), 8, Instant::now());
        assert_eq!(due(&mut open, &board, &hosts), [2]);
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), [1, 2]);
    }

    #[test]
    fn a_host_of_which_it_was_forgotten_what_it_holds_has_to_confirm() {
        let (mut open, hosts) = (started(&[]), These(&[1]));
        let mut board = board(9);
        board.put(host(1), HostStatus { forgot: 7, ..HostStatus::default() });
        open.put(release(1, &[NIC], None), 7, Instant::now());
        open.put(release(2, &[NIC], None), 8, Instant::now());
        assert_eq!(due(&mut open, &board, &hosts), [2]);
        confirmed(&mut board, 1);
        assert_eq!(due(&mut open, &board, &hosts), [1, 2]);
    }

    #[test]
    fn hosts_are_written_down_for_what_stays_open_and_once() {
        let (mut open, hosts, start) = (started(&[]), These(&[1, 2]), Instant::now());
        let mut board = board(5);
        told(&mut board, 2, &[NIC]);
        open.put(release(1, &[NIC], None), 5, start);
        assert_eq!(due(&mut open, &board, &hosts), []);
        assert_eq!(open.to_name(&board, &hosts, start), []);
        let later = start + NAME_AFTER;
        assert_eq!(open.to_name(&board, &hosts, later), [(Uuid::from_u128(1), vec![host(2)])]);
        open.put(release(1, &[NIC], Some(&[2])), 7, later);
        assert_eq!(open.to_name(&board, &hosts, later + Duration::from_secs(60)), []);
        assert_eq!(open.oldest_unnamed(), None);
    }

    #[test]
    fn a_report_has_only_those_looked_at_that_wait_for_its_host() {
        let (mut open, hosts) = (started(&[]), These(&[1, 2]));
        let mut board = board(5);
        told(&mut board, 1, &(100..200).collect::<Vec<_>>());
        told(&mut board, 2, &[NIC]);
        for at in 100..200 {
            open.put(release(at, &[at], None), 5, Instant::now());
        }
        open.put(release(1, &[NIC], None), 5, Instant::now());
        assert_eq!(due(&mut open, &board, &hosts), []);
        confirmed(&mut board, 2);
        open.wake(&board, &hosts);
        assert_eq!(open.fresh.len(), 1);
        assert_eq!(due(&mut open, &board, &hosts), [1]);
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone() {
        let (mut open, hosts) = (started(&[release(1, &[NIC], Some(&[1]))]), These(&[1]));
        open.put(release(2, &[NIC], None), 5, Instant::now());
        due(&mut open, &board(5), &hosts);
        [1, 2].map(Uuid::from_u128).into_iter().for_each(|uuid| open.remove(uuid));
        due(&mut open, &board(5), &hosts);
        let left = [open.releases.len(), open.fresh.len(), open.waiting.len(), open.named.len()];
        assert_eq!((left, open.unnamed.len()), ([0; 4], 0));
    }
}
