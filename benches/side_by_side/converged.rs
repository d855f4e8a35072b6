//! A lab that is up already: nothing to change, one guest more, one rule changed.

use crate::Result;
use crate::figures::Store;
use crate::labs::{Extra, LAB, Shape, fabric};
use crate::measure::Tools;
use crate::rivals::{Netloom, Rival as _, write};

pub(crate) fn measure(tools: &Tools, store: &mut Store, runs: usize, n: usize) -> Result<()> {
    let plain = write("plain.yaml", &fabric(n, Extra::Nothing))?;
    let more = write("more.yaml", &fabric(n, Extra::Guest))?;
    let firewalls = [80, 81].map(|port| fabric(n, Extra::Firewall(port)));
    let [first, second] = [write("first.yaml", &firewalls[0])?, write("second.yaml", &firewalls[1])?];
    Netloom.up(tools, Shape::Fabric, n)?;
    let up = |file: &str| tools.netloom(&["up", "--guests", "namespace", file]);
    for _ in 0..runs {
        let raw = tools.floor(&["dump"])?;
        store.add(("converged", "read everything", "raw dump", n), "s", raw.seconds);
        let same = up(&plain)?;
        store.add(("converged", "up, nothing to change", "netloom", n), "s", same.seconds);
        store.add(("converged", "memory of up, nothing to change", "netloom", n), "MB", same.rss_kb / 1000.0);
        let plan = tools.netloom(&["plan", "--guests", "namespace", "--check", &plain])?;
        store.add(("converged", "plan", "netloom", n), "s", plan.seconds);
        let status = tools.netloom(&["status", LAB])?;
        store.add(("converged", "status", "netloom", n), "s", status.seconds);
        store.add(("converged", "one guest more", "netloom", n), "s", up(&more)?.seconds);
        store.add(("converged", "one guest less", "netloom", n), "s", up(&plain)?.seconds);
    }
    // From here on the lab has a firewall; one guest more or less was measured without.
    up(&first)?;
    for run in 0..runs {
        let file = if run % 2 == 0 { &second } else { &first };
        store.add(("converged", "one rule changed", "netloom", n), "s", up(file)?.seconds);
    }
    tools.netloom(&["down", LAB])?;
    tools.settle()?;
    Ok(())
}
