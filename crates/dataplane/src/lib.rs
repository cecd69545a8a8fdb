//! eBPF loader, map writers and their read-back.
