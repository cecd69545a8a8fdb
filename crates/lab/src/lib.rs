//! Hosts, networks and VMs on one machine.
