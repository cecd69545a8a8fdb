//! Drivers that run instances: netns.
