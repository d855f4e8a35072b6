//! `netloom schema`.

use super::ui;
use crate::error::Result;
use crate::spec;

pub(super) fn run() -> Result<u8> {
    ui::json(&spec::schema())?;
    Ok(0)
}
