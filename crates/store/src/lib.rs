//! Snapshots, transactions and durable engines.
