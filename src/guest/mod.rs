//! Guests: what they are told ([`config`]) and what they are made of.

pub mod config;
