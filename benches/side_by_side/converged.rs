//! A lab that is up already: nothing to change, one guest more, one rule changed.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::Result;
use crate::figures::Store;
use crate::labs::{Extra, LAB, Shape, fabric};
use crate::measure::Tools;
use crate::rivals::{Netloom, Rival as _, write};
use crate::world;

pub(crate) fn measure(tools: &Tools, store: &mut Store, runs: usize, n: usize) -> Result<()> {
    let plain = write("plain.yaml", &fabric(n, Extra::Nothing))?;
    let more = write("more.yaml", &fabric(n, Extra::Guest))?;
    let firewalls = [80, 81].map(|port| fabric(n, Extra::Firewall(port)));
    let [first, second] = [write("first.yaml", &firewalls[0])?, write("second.yaml", &firewalls[1])?];
    Netloom.up(tools, Shape::Fabric, n)?;
    let up = |file: &str| tools.netloom(&["up", "--guests", "namespace", file]);
    for _ in 0..runs {
        let raw = tools.floor(&["dump"])?;
        store.add_run(("converged", "read everything", "raw dump", n), &raw);
        let same = up(&plain)?;
        store.add_run(("converged", "up, nothing to change", "netloom", n), &same);
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
        let file = if run.is_multiple_of(2) { &second } else { &first };
        store.add(("converged", "one rule changed", "netloom", n), "s", up(file)?.seconds);
    }
    let changed = transactions(|| up(if runs.is_multiple_of(2) { &second } else { &first }).map(drop))?;
    store.add(("converged", "nft transactions of one rule changed", "netloom", n), "", changed);
    tools.netloom(&["down", LAB])?;
    tools.settle()?;
    Ok(())
}

/// Counts nft's transactions, as nft itself tells them, on the host and in the firewall, while something is done.
fn transactions(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let firewall = format!("netloom.{LAB}.fw");
    let mut watchers = Vec::new();
    for (file, inside) in [("host.log", &[][..]), ("fw.log", &["ip", "netns", "exec", firewall.as_str()][..])]
    {
        let path = Path::new(world::WORK).join(file);
        let words = [&["stdbuf", "-oL"], inside, &["nft", "monitor"]].concat();
        let child = Command::new(words[0]).args(&words[1..]).stdout(File::create(&path)?).spawn()?;
        watchers.push((path, child));
    }
    let moment = Duration::from_millis(500); // nft does not say when it listens, nor when it has said all
    sleep(moment);
    let done = work();
    sleep(moment);
    let mut count = 0.0;
    for (path, mut child) in watchers {
        child.kill()?;
        child.wait()?;
        let said = fs::read_to_string(path)?;
        count += said.lines().filter(|line| line.contains("new generation")).map(|_| 1.0).sum::<f64>();
    }
    done.map(|()| count)
}
