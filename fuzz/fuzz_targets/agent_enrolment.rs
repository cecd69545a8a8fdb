//! Fuzzes `agent::fuzz::ENROLMENT`.
#![no_main]

netloom_fuzz::fuzz!(agent::fuzz::ENROLMENT);
