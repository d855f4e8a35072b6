//! `netloom doctor`.

use clap::Args;

use super::ui;
use crate::doctor;
use crate::error::{Kind, Result};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let findings = doctor::examine();
    if arguments.json {
        ui::json(&findings)?;
    } else {
        ui::print(&doctor::render(&findings, report::use_color()))?;
    }
    Ok(if doctor::lacks_something(&findings) { Kind::Host.exit_code() } else { 0 })
}
