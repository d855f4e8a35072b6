//! `netloom completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, ui};
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "netloom", &mut text);
    ui::print(&String::from_utf8_lossy(&text))?;
    Ok(0)
}
