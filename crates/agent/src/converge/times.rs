//! How long connections are remembered that are idle.

use packet::Timeouts;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Table},
};

use super::{Converger, Outcome};
use crate::kernel::HostKernel;

impl<K: HostKernel> Converger<K> {
    /// Has connections remembered for as long as is desired; without a word of it, for as long as the
    /// data plane would by itself.
    pub(super) async fn times(&mut self, desired: &Holding, outcome: &mut Outcome) {
        let wanted = wanted(desired);
        let timeouts = wanted.as_ref().map(seconds).unwrap_or_default();
        if self.known.times && self.times == timeouts {
            return;
        }
        let done = self.kernel.remember(&timeouts).await;
        (self.known.times, self.times) = (done.is_ok(), timeouts);
        let Err(refusal) = done else { return };
        match wanted {
            Some(wanted) => _ = outcome.failed.insert(wanted.uuid, refusal.0),
            None => outcome.trouble.push(format!("data plane: {refusal}")),
        }
    }
}

/// There is one at most.
fn wanted(desired: &Holding) -> Option<wire::object::Timeouts> {
    let first = ObjectKey { table: Table::Timeouts, uuid: uuid::Uuid::nil() };
    match desired.objects().range(first..).next().map(|(_, object)| &**object) {
        Some(Object::Timeouts(timeouts)) => Some(timeouts.clone()),
        _ => None,
    }
}

fn seconds(wanted: &wire::object::Timeouts) -> Timeouts {
    Timeouts {
        tcp_opening: wanted.tcp_opening,
        tcp_established: wanted.tcp_established,
        tcp_closing: wanted.tcp_closing,
        tcp_closed: wanted.tcp_closed,
        opening: wanted.opening,
        udp_established: wanted.udp_established,
        icmp: wanted.icmp,
        other: wanted.other,
    }
}

#[cfg(test)]
mod tests {
    use model::setting;

    use super::*;

    #[test]
    fn what_settings_say_by_default_is_what_the_data_plane_does_by_itself() {
        let settings = [
            &setting::TCP_OPENING,
            &setting::TCP_ESTABLISHED,
            &setting::TCP_CLOSING,
            &setting::TCP_CLOSED,
            &setting::OPENING,
            &setting::UDP_ESTABLISHED,
            &setting::ICMP,
            &setting::OTHER,
        ];
        let named = Timeouts::default().named();
        assert_eq!(named.len(), settings.len());
        for ((name, seconds), setting) in named.into_iter().zip(settings) {
            assert_eq!(setting.of.default(), seconds.to_string(), "{name}");
        }
    }
}
