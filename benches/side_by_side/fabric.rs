//! Building and removing fabrics of growing size, and what others have to wait for meanwhile.

use crate::figures::Store;
use crate::labs::Shape;
use crate::measure::Tools;
use crate::rivals::{IpBatch, Netloom, Raw, Rival, Script};
use crate::{Options, Result};

/// Size of the fabric during which another program's waiting is measured.
const HELD: usize = 100;

fn everybody(tools: &Tools, store: &mut Store, part: &str, without: &[String]) -> Vec<Box<dyn Rival>> {
    let mut all: Vec<Box<dyn Rival>> = vec![
        Box::new(Netloom),
        Box::new(Raw { name: "raw netlink", how: "group" }),
        Box::new(Raw { name: "raw netlink, in chunks", how: "chunks" }),
        Box::new(Raw { name: "raw netlink, one bridge", how: "one" }),
        Box::new(IpBatch),
    ];
    for script in [Script::mininet(), Script::pyroute2()] {
        if script.present(tools) {
            all.push(Box::new(script));
        } else {
            store.missing(part, &format!("{} is not installed", script.name()));
        }
    }
    for name in without {
        store.missing(part, &format!("{name} was left out"));
    }
    all.retain(|rival| !without.iter().any(|name| name == rival.name()));
    all
}

/// How the work is called in the tables.
fn named(shape: Shape, verb: &str) -> String {
    match shape {
        Shape::Linear => format!("{verb}, chain of switches"),
        _ => verb.to_owned(),
    }
}

/// Both parts, `fabric` and `teardown`.
pub(crate) fn measure(tools: &Tools, store: &mut Store, options: &Options) -> Result<()> {
    let Options { runs, sizes, linear, .. } = options;
    let (runs, linear) = (*runs, *linear);
    let mut rivals = everybody(tools, store, "fabric", &options.without);
    let mut labs: Vec<(Shape, usize)> = sizes.iter().map(|n| (Shape::Fabric, *n)).collect();
    if linear > 0 {
        labs.insert(0, (Shape::Linear, linear));
    }
    tools.settle()?;
    for (shape, n) in labs {
        for _ in 0..runs {
            for rival in &mut rivals {
                if rival.declines(shape, n).is_some() {
                    continue;
                }
                if let Err(error) = turn(tools, store, rival.as_mut(), shape, n) {
                    let why = format!("{}, {shape:?} of {n}: {error}", rival.name());
                    store.missing("fabric", &why);
                    rubble(tools)?;
                }
            }
        }
        store.save("fabric")?;
    }
    Ok(())
}

fn turn(tools: &Tools, store: &mut Store, rival: &mut dyn Rival, shape: Shape, n: usize) -> Result<()> {
    let name = rival.name();
    let up = rival.up(tools, shape, n)?;
    let down = rival.down(tools, shape, n)?;
    let settled = tools.settle()?;
    // The floor's lab is built in one way only; in chunks, or not, is how it is removed.
    if !name.starts_with("raw netlink, ") {
        store.add_run(("fabric", &named(shape, "up"), name, n), &up);
    }
    store.add(("teardown", &named(shape, "down until gone"), name, n), "s", down.seconds + settled);
    Ok(())
}

/// After a failure: whatever is left goes, so that the next one starts from nothing.
fn rubble(tools: &Tools) -> Result<()> {
    let script = "for link in $(ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\).*/\\1/p' | grep -vx lo); do \
                  ip link delete \"$link\" 2>/dev/null || :; done; ip -all netns delete";
    tools.timed(&["sh", "-c", script])?;
    tools.settle()?;
    Ok(())
}

/// The longest that another program's `ip link add` and `ip link delete` took meanwhile.
pub(crate) fn held(tools: &Tools, store: &mut Store, options: &Options) -> Result<()> {
    let (runs, linear) = (options.runs, options.linear);
    let mut rivals = everybody(tools, store, "held", &options.without);
    let note = |store: &mut Store, work: &str, who: &str, n: usize, held: crate::measure::Held| {
        store.add(("held", &format!("link add during {work}"), who, n), "s", held.add);
        store.add(("held", &format!("link delete during {work}"), who, n), "s", held.delete);
    };
    let labs = [(Shape::Fabric, HELD), (Shape::Linear, linear)];
    for (shape, n) in labs.into_iter().filter(|(_, n)| *n > 0) {
        for _ in 0..runs {
            let (_, idle) = tools.held(|| tools.timed(&["sleep", "2"]))?;
            note(store, &named(shape, "nothing"), "nobody", n, idle);
            for rival in &mut rivals {
                if rival.declines(shape, n).is_some() {
                    continue;
                }
                let name = rival.name();
                let (_, up) = tools.held(|| rival.up(tools, shape, n))?;
                let (_, down) = tools.held(|| {
                    rival.down(tools, shape, n)?;
                    tools.floor(&["settle"])
                })?;
                tools.settle()?;
                if !name.starts_with("raw netlink, ") {
                    note(store, &named(shape, "up"), name, n, up);
                }
                note(store, &named(shape, "down"), name, n, down);
            }
        }
    }
    Ok(())
}
