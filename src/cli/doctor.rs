//! `netloom doctor`.

use clap::Args;

use super::ui;
use crate::doctor::{self, Status};
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
    let missing = findings.iter().any(|finding| finding.status == Status::Missing);
    Ok(if missing { Kind::Host.exit_code() } else { 0 })
}
