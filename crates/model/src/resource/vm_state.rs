//! The states of an instance, and what leads from one to another.

use crate::words;

words! {
    /// The state of an instance.
    InstanceState {
        /// It was made and has never been on a host. Ends when it is started or destroyed.
        Created = "Created",
        /// Its host has been told. Ends when the host reports it, or is lost, or the instance is
        /// stopped or destroyed.
        Starting = "Starting",
        /// Its host says that it runs. Ends as `Starting` does, or when it is rebooted or paused.
        Running = "Running",
        /// It is a machine that stands still on its host. Ends as `Running` does, or when it is resumed.
        Paused = "Paused",
        /// It is meant to be on no host, and one has not confirmed that it let go. Ends when that
        /// is confirmed or vouched for, or when it is started or destroyed.
        Stopping = "Stopping",
        /// It is on no host. Ends when it is started or destroyed.
        Stopped = "Stopped",
        /// As `Stopping`, and destroyed. Ends when the host has let go, or when it is recovered.
        Destroying = "Destroying",
        /// It is on no host and has no addresses. Ends when it is recovered or expunged.
        Destroyed = "Destroyed",
        /// Its host cannot be asked. Ends when the host reports it, or the instance is stopped or
        /// destroyed.
        Unknown = "Unknown",
    }
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceEvent {
    /// It is to start.
    Start,
    /// It is to stop.
    Stop,
    /// It is to start anew where it is.
    Reboot,
    /// It is to stand still.
    Pause,
    /// It is to go on.
    Resume,
    /// It is to end.
    Destroy,
    /// It is to be as before its end.
    Recover,
    /// It is to be forgotten.
    Expunge,
    /// Its NICs or addresses are to change.
    Plug,
    /// Its host says that it runs.
    Runs,
    /// Its host says that it is there, and it is to stand still.
    StandsStill,
    /// Its host says nothing of it, or that it does not run yet.
    DoesNotRun,
    /// Its host cannot be asked.
    HostLost,
    /// No host holds it any more.
    LetGo,
}

impl InstanceState {
    /// The state after an event; `None` if it refuses what is asked for. What a host says of an
    /// instance that is not meant to be there changes nothing.
    #[must_use]
    pub const fn next(self, event: InstanceEvent) -> Option<Self> {
        use InstanceEvent as E;
        use InstanceState as S;
        if !self.takes(event) {
            return None;
        }
        Some(match (event, self) {
            (E::Start | E::Reboot, _) => S::Starting,
            (E::Stop, S::Created | S::Stopped) | (E::Plug, _) => self,
            (E::Stop, _) | (E::Recover, S::Destroying) => S::Stopping,
            (E::Pause, _) => S::Paused,
            (E::Resume, _) => S::Running,
            (E::Destroy, S::Created | S::Stopped | S::Destroyed) | (E::Expunge, _) => S::Destroyed,
            (E::Destroy, _) => S::Destroying,
            (E::Recover, _) | (E::LetGo, S::Stopping) => S::Stopped,
            (E::LetGo, S::Destroying) => S::Destroyed,
            (E::LetGo, _) => self,
            (E::Runs | E::StandsStill | E::DoesNotRun | E::HostLost, _) if !self.has_host() => self,
            (E::Runs, _) => S::Running,
            (E::StandsStill, _) => S::Paused,
            (E::DoesNotRun, _) => S::Starting,
            (E::HostLost, _) => S::Unknown,
        })
    }

    /// Whether it is meant to be on a host.
    const fn has_host(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Unknown)
    }

    /// Whether it does not refuse what is asked for.
    const fn takes(self, event: InstanceEvent) -> bool {
        use InstanceEvent as E;
        use InstanceState as S;
        match event {
            E::Start => matches!(self, S::Created | S::Stopping | S::Stopped),
            E::Stop => !matches!(self, S::Destroying | S::Destroyed),
            E::Reboot => matches!(self, S::Starting | S::Running),
            E::Pause => matches!(self, S::Running),
            E::Resume => matches!(self, S::Paused),
            E::Recover | E::Expunge => matches!(self, S::Destroying | S::Destroyed),
            E::Plug => !matches!(self, S::Unknown | S::Destroying | S::Destroyed),
            E::Destroy | E::LetGo => true,
            E::Runs | E::StandsStill | E::DoesNotRun | E::HostLost => true,
        }
    }

    /// The states that take an event.
    pub fn that_take(event: InstanceEvent) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |state| state.next(event).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{InstanceEvent as E, InstanceState as S};

    #[test]
    fn each_wish_is_taken_in_the_states_that_it_makes_sense_in() {
        let takes = |event| S::that_take(event).collect::<Vec<_>>();
        assert_eq!(takes(E::Start), [S::Created, S::Stopping, S::Stopped]);
        assert_eq!(takes(E::Reboot), [S::Starting, S::Running]);
        assert_eq!(takes(E::Recover), [S::Destroying, S::Destroyed]);
        assert_eq!(takes(E::Expunge), [S::Destroying, S::Destroyed]);
        assert_eq!((takes(E::Pause), takes(E::Resume)), (vec![S::Running], vec![S::Paused]));
        let plugged = [S::Created, S::Starting, S::Running, S::Paused, S::Stopping, S::Stopped];
        assert_eq!(takes(E::Plug), plugged);
        assert_eq!(takes(E::Destroy), S::ALL);
        for report in [E::Runs, E::StandsStill, E::DoesNotRun, E::HostLost, E::LetGo] {
            assert_eq!(takes(report), S::ALL, "{report:?}");
        }
    }

    #[test]
    fn what_hosts_say_moves_only_what_is_meant_to_be_on_one() {
        let cases: &[(S, &[E], S)] = &[
            (S::Stopped, &[E::Runs], S::Stopped),
            (S::Stopped, &[E::Start, E::DoesNotRun], S::Starting),
            (S::Created, &[E::Start, E::Runs], S::Running),
            (S::Running, &[E::HostLost, E::Runs], S::Running),
            (S::Running, &[E::HostLost, E::Stop, E::HostLost], S::Stopping),
            (S::Running, &[E::Stop, E::Runs, E::LetGo], S::Stopped),
            (S::Running, &[E::LetGo], S::Running),
            (S::Running, &[E::Pause, E::StandsStill, E::HostLost, E::StandsStill], S::Paused),
            (S::Paused, &[E::DoesNotRun, E::StandsStill, E::Resume, E::Runs], S::Running),
            (S::Stopped, &[E::StandsStill], S::Stopped),
            (S::Running, &[E::Reboot, E::Runs], S::Running),
            (S::Running, &[E::Destroy, E::LetGo, E::Recover], S::Stopped),
            (S::Running, &[E::Destroy, E::Recover, E::LetGo], S::Stopped),
        ];
        for (first, events, expected) in cases {
            let last = events.iter().try_fold(*first, |state, event| state.next(*event));
            assert_eq!(last, Some(*expected), "{first:?} {events:?}");
        }
    }
}
