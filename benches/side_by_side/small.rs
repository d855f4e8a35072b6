//! What every call costs: starting, reading a file; and how that grows.

use std::fs;

use crate::Result;
use crate::figures::Store;
use crate::labs::Shape;
use crate::measure::Tools;
use crate::rivals::write;

pub(crate) fn measure(tools: &Tools, store: &mut Store, runs: usize) -> Result<()> {
    let binary = fs::metadata(&tools.netloom)?.len();
    #[allow(clippy::cast_precision_loss)] // a program of that size is far away
    store.add(("small", "size of the program", "netloom", 0), "MB", binary as f64 / 1e6);
    let small = tools.benches.join("../topologies/hci-firewall.yaml").to_string_lossy().into_owned();
    let sizes = [1000, 10_000, 50_000];
    let mut files = Vec::new();
    for n in sizes {
        files.push(write(&format!("validate-{n}.yaml"), &Shape::Fabric.yaml(n))?);
    }
    for _ in 0..runs {
        for _ in 0..4 {
            store.add_run(("small", "an empty process", "true", 0), &tools.timed(&["true"])?);
            store.add_run(("small", "--version", "netloom", 0), &tools.netloom(&["--version"])?);
            store.add_run(("small", "validate", "netloom", 3), &tools.netloom(&["validate", &small])?);
        }
        for (n, file) in sizes.into_iter().zip(&files) {
            let sample = tools.netloom(&["validate", file])?;
            store.add_run(("small", "validate", "netloom", n), &sample);
        }
    }
    Ok(())
}
