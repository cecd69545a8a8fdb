//! Links, addresses and network namespaces of a Linux host.
