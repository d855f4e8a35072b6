//! `netloom image`.

use clap::{Args, Subcommand};

use super::ui;
use crate::error::Result;
use crate::host::labdir::state_directory;
use crate::{image, report};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the built-in guest image from this distribution's packages, unless it is there already
    Build {
        /// Look for newer packages even if there is an image
        #[arg(long)]
        fresh: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List the images that are there
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Import a disk image under a name
    Import {
        /// Its name in `image:`
        name: String,
        /// A path or URL
        source: String,
        /// Expected SHA-256, in hex
        #[arg(long)]
        sha256: Option<String>,
    },
    /// Remove an image
    Remove {
        /// Its name
        name: String,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<u8> {
    let cache = state_directory()?.join("images");
    match &arguments.verb {
        Verb::Build { fresh, json } => {
            let build = if *fresh { image::build } else { image::built_in };
            let built = build(&cache, &mut |line| ui::say(line))?;
            if *json {
                ui::json(&built)?;
            } else {
                ui::print(&format!("{}\n{}\n", built.kernel.display(), built.initrd.display()))?;
            }
        }
        Verb::List { json } => {
            let images = image::list(&cache)?;
            if *json {
                ui::json(&images)?;
            } else {
                let rows: Vec<Vec<String>> = images
                    .iter()
                    .map(|i| {
                        vec![
                            i.name.clone(),
                            format!("{:.1} MiB", i.size as f64 / 1_048_576.0),
                            i.digest.clone(),
                        ]
                    })
                    .collect();
                ui::print(&report::table(&["NAME", "SIZE", "DIGEST"], &rows))?;
            }
        }
        Verb::Import { name, source, sha256 } => {
            image::import(&cache, name, source, sha256.as_deref())?;
            ui::say(&format!("imported {name}"));
        }
        Verb::Remove { name } => {
            image::remove(&cache, name)?;
            ui::say(&format!("removed {name}"));
        }
    }
    Ok(0)
}
