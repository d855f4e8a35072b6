//! From the file's mirror to the checked model.

mod check;
mod load;
mod model;
mod policy;

pub use load::{LoadError, LoadOptions, SIZE_MAX, load, load_bytes, load_file};
pub use model::*;
pub use policy::*;
