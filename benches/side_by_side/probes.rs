//! Everyone asks everyone: all ordered pairs of guests, over ICMP and one TCP port.

use crate::Result;
use crate::figures::Store;
use crate::labs::{LAB, Shape};
use crate::measure::Tools;
use crate::rivals::{Netloom, Rival as _};

pub(crate) fn measure(tools: &Tools, store: &mut Store, runs: usize, n: usize) -> Result<()> {
    Netloom.up(tools, Shape::Mesh, n)?;
    for _ in 0..runs {
        let work = "test of all ordered pairs, ICMP and TCP";
        match tools.netloom(&["test", LAB]) {
            Ok(sample) => store.add_run(("probes", work, "netloom", n), &sample),
            Err(error) => store.missing("probes", &error.to_string()),
        }
    }
    tools.netloom(&["down", LAB])?;
    tools.settle()?;
    Ok(())
}
