//! Virtual machines, under a libvirt daemon of the world's own: netloom through the daemon and with libvirt's embedded
//! driver, a bare libvirt client that starts the very same domains, and virt-install in a loop.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netloom::compare::against::daemon::open_kvm;

use crate::Result;
use crate::figures::Store;
use crate::labs::{LAB, Shape};
use crate::measure::{Conversation, Tools};
use crate::rivals::write;
use crate::world;

const PART: &str = "machines";
const UP: &str = "up until every guest is ready";
const DOWN: &str = "down";
const URI: &str = "qemu:///system";

/// How many domains the bare client starts at once; the best counts.
const AT_ONCE: [usize; 3] = [1, 2, 4];

pub(crate) fn measure(tools: &Tools, store: &mut Store, runs: usize, sizes: &[usize]) -> Result<()> {
    if let Err(error) = daemon() {
        store.missing(PART, &format!("no libvirt daemon: {error}"));
        return Ok(());
    }
    let bare = tools.benches.join("rivals/bare_libvirt.py");
    let has = |program: &str, argument: &str| {
        let output = Command::new(program).args([bare.as_os_str(), argument.as_ref()]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let python = has("/usr/bin/python3", "--probe");
    if !python {
        store.missing(PART, "the bare libvirt client: python3-libvirt is not installed");
    }
    let installer = Command::new("virt-install").arg("--version").output().is_ok_and(|o| o.status.success());
    if !installer {
        store.missing(PART, "virt-install: virtinst is not installed");
    }
    store
        .missing(PART, "vagrant-libvirt: it takes a box with an SSH server, and none can be downloaded here");
    for n in sizes.iter().copied().filter(|n| *n > 0) {
        let captured = Path::new(world::WORK).join(format!("domains-{n}"));
        if python {
            capture(tools, &bare, &captured, n)?;
        }
        for _ in 0..runs {
            own(tools, store, "netloom", &["--connect", URI], n)?;
            own(tools, store, "netloom, no daemon", &[], n)?;
            if python {
                for threads in AT_ONCE.into_iter().filter(|threads| *threads <= n) {
                    client(store, &bare, &captured, n, threads)?;
                }
            }
            if installer
                && python
                && let Err(error) = install(tools, store, &bare, &captured, n)
            {
                store.missing(PART, &format!("virt-install: {error}"));
            }
        }
        store.save(PART)?;
    }
    Ok(())
}

/// How many boots at once are soonest done: the bare client with windows of growing size, and netloom as it decides.
pub(crate) fn curve(tools: &Tools, store: &mut Store, runs: usize, n: usize) -> Result<()> {
    const CURVE: &str = "curve";
    if let Err(error) = daemon() {
        store.missing(CURVE, &format!("no libvirt daemon: {error}"));
        return Ok(());
    }
    let bare = tools.benches.join("rivals/bare_libvirt.py");
    let captured = Path::new(world::WORK).join(format!("domains-{n}"));
    capture(tools, &bare, &captured, n)?;
    let file = write("machines.yaml", &Shape::Machines.yaml(n))?;
    let windows: Vec<usize> =
        [1, 2, 3, 4, 6, 8, 12, 16, 24].into_iter().filter(|w| *w < n).chain([n]).collect();
    for _ in 0..runs {
        let up = tools.netloom(&["up", "--connect", URI, "--timeout", "900", &file])?;
        store.add((CURVE, UP, "netloom", n), "s", up.seconds);
        tools.netloom(&["down", LAB])?;
        tools.settle()?;
        for window in &windows {
            let words = [n, (*window).min(4), *window].map(|number| number.to_string());
            let mut command = Command::new("/usr/bin/python3");
            command.arg(&bare).arg("run").arg(&captured).args(words);
            let mut conversation = Conversation::start(&mut command)?;
            conversation.line()?;
            let ready = conversation.line()?;
            conversation.finish()?;
            let who = format!("bare libvirt client, {window} booting at once");
            store.add((CURVE, UP, &who, n), "s", ready);
        }
    }
    Ok(())
}

/// Starts the world's own libvirt daemon; nothing of the host's is seen or touched by it.
fn daemon() -> Result<()> {
    if Path::new("/run/libvirt/libvirt-sock").exists() {
        return Ok(()); // since the part before
    }
    let own = [
        "/var/lib/libvirt",
        "/var/log/libvirt",
        "/var/cache/libvirt",
        "/etc/libvirt/qemu",
        "/etc/libvirt/storage",
    ];
    for directory in own {
        fs::create_dir_all(directory)?; // where the package leaves one to the first start
        world::over(directory)?;
    }
    for directory in ["qemu", "images", "dnsmasq", "boot", "network"] {
        fs::create_dir_all(Path::new("/var/lib/libvirt").join(directory))?;
    }
    fs::create_dir_all("/etc/libvirt/qemu/networks/autostart")?;
    open_kvm()?;
    for (program, argument) in [("chown", "libvirt-qemu:"), ("chmod", "751")] {
        let _ = Command::new(program).args([argument, "/var/lib/libvirt/qemu"]).status()?;
    }
    for program in ["virtlogd", "libvirtd"] {
        if !Command::new(program).arg("-d").status()?.success() {
            return Err(format!("{program} does not start").into());
        }
    }
    let began = Instant::now();
    while !Path::new("/run/libvirt/libvirt-sock").exists() {
        if began.elapsed() > Duration::from_secs(20) {
            return Err("libvirtd makes no socket".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Keeps what the bare client starts: the domains that netloom makes for this lab.
fn capture(tools: &Tools, bare: &Path, captured: &Path, n: usize) -> Result<()> {
    let file = write("machines.yaml", &Shape::Machines.yaml(n))?;
    tools.netloom(&["up", "--connect", URI, &file])?;
    let (bare, captured) = (bare.to_string_lossy(), captured.to_string_lossy());
    tools.timed(&["/usr/bin/python3", &bare, "capture", &captured])?;
    tools.netloom(&["down", LAB])?;
    tools.settle()?;
    Ok(())
}

fn own(tools: &Tools, store: &mut Store, who: &str, arguments: &[&str], n: usize) -> Result<()> {
    let file = write("machines.yaml", &Shape::Machines.yaml(n))?;
    if arguments.is_empty() {
        // The daemon's socket out of sight: without one netloom uses the driver itself.
        fs::rename("/run/libvirt/libvirt-sock", "/run/libvirt/hidden")?;
    }
    let up = tools.netloom(&[&["up"], arguments, &[file.as_str()]].concat());
    let down = tools.netloom(&["down", LAB]);
    if arguments.is_empty() {
        fs::rename("/run/libvirt/hidden", "/run/libvirt/libvirt-sock")?;
    }
    store.add((PART, UP, who, n), "s", up?.seconds);
    store.add((PART, DOWN, who, n), "s", down?.seconds);
    tools.settle()?;
    Ok(())
}

fn client(store: &mut Store, bare: &Path, captured: &Path, n: usize, threads: usize) -> Result<()> {
    let who = format!("bare libvirt client, {threads} at once");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(bare).arg("run").arg(captured).args([n.to_string(), threads.to_string()]);
    let mut conversation = Conversation::start(&mut command)?;
    let created = conversation.line()?;
    let ready = conversation.line()?;
    let began = Instant::now();
    conversation.finish()?;
    store.add((PART, "domains created", &who, n), "s", created);
    store.add((PART, UP, &who, n), "s", ready);
    store.add((PART, DOWN, &who, n), "s", began.elapsed().as_secs_f64());
    Ok(())
}

/// virt-install in a loop, of domains with the same kernel, agent and console, and neither NIC nor disk.
fn install(tools: &Tools, store: &mut Store, bare: &Path, captured: &Path, n: usize) -> Result<()> {
    let who = "virt-install in a loop";
    let xml = fs::read_to_string(captured.join("0.xml"))?;
    let element = |name: &str| -> Result<String> {
        let (_, rest) = xml.split_once(&format!("<{name}>")).ok_or(format!("the domain has no {name}"))?;
        Ok(rest.split('<').next().unwrap_or_default().to_owned())
    };
    let [kernel, initrd, words] = [element("kernel")?, element("initrd")?, element("cmdline")?];
    let names: Vec<String> = (0..n).map(|i| format!("pf-v{i}")).collect();
    let mut script = String::from("set -e\n");
    for name in &names {
        script += &format!(
            "virt-install --quiet --connect {URI} --name {name} --memory 128 --transient --import --disk none \
             --network none --graphics none --noautoconsole --osinfo detect=off,require=off --virt-type qemu \
             --machine pc --channel unix,target.type=virtio,target.name=org.qemu.guest_agent.0 \
             --boot 'kernel={kernel},initrd={initrd},kernel_args={words}'\n"
        );
    }
    let mut watcher = Command::new("/usr/bin/python3");
    watcher.arg(bare).arg("watch").args(&names);
    let mut watcher = Conversation::start(&mut watcher)?;
    let begun = watcher.line()?;
    let created = tools.timed(&["sh", "-c", &script])?;
    let ready = watcher.line()? - begun;
    watcher.finish()?;
    store.add((PART, "domains created", who, n), "s", created.seconds);
    store.add((PART, UP, who, n), "s", ready);
    let gone = names.iter().map(|name| format!("virsh -q -c {URI} destroy {name}\n")).collect::<String>();
    let gone = tools.timed(&["sh", "-ec", &gone])?;
    store.add((PART, DOWN, "virsh destroy in a loop", n), "s", gone.seconds);
    Ok(())
}
