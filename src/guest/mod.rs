//! Guests: what each is told about itself, whatever it is made of.

pub mod config;
pub mod seed;
