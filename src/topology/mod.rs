//! From the file's mirror to the checked model.

mod model;

pub use model::*;
