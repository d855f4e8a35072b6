//! Domain XML: written for a new domain, read for what is observed. The element names are those of libvirt's domain
//! format, <https://libvirt.org/formatdomain.html>.

use std::io;
use std::path::{Path, PathBuf};

use quick_xml::Writer;
use quick_xml::events::{BytesStart, BytesText, Event};

use super::accel::Acceleration;
use crate::error::{Context, Error, Result};
use crate::resource::names;
use crate::topology::Mac;

/// Namespace of our metadata element.
pub const NAMESPACE: &str = "https://netloom.dev/ns/1";

/// QEMU's translation cache, in MiB. Its default is a share of the host's memory. A small guest fills some 80 of them (50
/// MiB more in memory than with 32) and then takes a third less of the processor than with 32, which it outgrows.
const TB_CACHE_MIB: u32 = 128;

/// MTU that needs no words, in bytes.
const USUAL_MTU: u32 = 1500;

/// A kernel that is started directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// An uncompressed `vmlinux` (fastest) or a `bzImage`.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Command line.
    pub cmdline: String,
}

/// A virtio NIC on a tap that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// MAC address.
    pub mac: Mac,
    /// Kernel name of the tap.
    pub tap: String,
    /// Bytes.
    pub mtu: u32,
}

/// Everything a domain's XML is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// libvirt's name.
    pub name: String,
    /// Lab of the mark.
    pub lab: String,
    /// Guest of the mark.
    pub guest: String,
    /// Digest of the desired domain, of the mark.
    pub digest: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// KVM or emulation.
    pub acceleration: Acceleration,
    /// Path of QEMU; libvirt finds it where this is `None`.
    pub emulator: Option<PathBuf>,
    /// Booted directly, where there is one.
    pub kernel: Option<Kernel>,
    /// A qcow2 image, the first disk, booted from where there is no kernel.
    pub disk: Option<PathBuf>,
    /// A raw, read-only image: the NoCloud seed.
    pub seed: Option<PathBuf>,
    /// NICs in order.
    pub nics: Vec<NicSpec>,
    /// File that everything the guest writes on its serial console is kept in; begun anew at each start.
    pub console_log: PathBuf,
}

/// A stable UUID (version 8, RFC 9562: its bits are ours) from lab and guest, so that a domain made anew is the same
/// machine to whoever counts machines.
#[must_use]
pub fn uuid(lab: &str, guest: &str) -> String {
    let mut hex = names::sha256(format!("netloom domain {lab}/{guest}").as_bytes());
    hex.replace_range(12..13, "8"); // version
    hex.replace_range(16..17, "a"); // variant 0b10
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

/// The domain's XML.
///
/// # Errors
/// When a path is not UTF-8, or a text holds a character that XML cannot carry.
pub fn domain_xml(spec: &DomainSpec) -> Result<String> {
    let failed = || format!("cannot describe domain `{}`", spec.name);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let kind = match spec.acceleration {
        Acceleration::Kvm => "kvm",
        Acceleration::Tcg => "qemu",
    };
    node(&mut writer, "domain", &[("type", kind)], |w| {
        identity(w, spec)?;
        machine(w, spec)?;
        node(w, "devices", &[], |w| devices(w, spec))
    })
    .context(failed)?;
    let text = String::from_utf8(writer.into_inner()).context(failed)?;
    match text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        None => Ok(text + "\n"),
        Some(c) => Err(Error::failed(failed()).caused_by(format!("{c:?} cannot stand in XML"))),
    }
}

/// Where XML is written to.
pub(crate) type Xml = Writer<Vec<u8>>;

fn identity(w: &mut Xml, spec: &DomainSpec) -> io::Result<()> {
    text(w, "name", &[], &spec.name)?;
    text(w, "uuid", &[], &uuid(&spec.lab, &spec.guest))?;
    text(w, "title", &[], &format!("{}/{}", spec.lab, spec.guest))?;
    text(
        w,
        "description",
        &[],
        &format!("Guest {} of netloom lab {}; `netloom down {}` removes it", spec.guest, spec.lab, spec.lab),
    )?;
    node(w, "metadata", &[], |w| {
        let attributes = [
            ("xmlns:netloom", NAMESPACE),
            ("lab", spec.lab.as_str()),
            ("guest", spec.guest.as_str()),
            ("digest", spec.digest.as_str()),
        ];
        leaf(w, "netloom:object", &attributes)
    })
}

fn machine(w: &mut Xml, spec: &DomainSpec) -> io::Result<()> {
    text(w, "memory", &[("unit", "MiB")], &spec.memory_mib.to_string())?;
    text(w, "vcpu", &[], &spec.cpus.to_string())?;
    node(w, "os", &[], |w| {
        // `pc` reaches user space sooner than `q35` under emulation: it has no PCIe ports to enumerate.
        text(w, "type", &[("arch", "x86_64"), ("machine", "pc")], "hvm")?;
        if let Some(boot) = &spec.kernel {
            text(w, "kernel", &[], utf8(&boot.kernel)?)?;
            if let Some(initrd) = &boot.initrd {
                text(w, "initrd", &[], utf8(initrd)?)?;
            }
            text(w, "cmdline", &[], &boot.cmdline)?;
        } else {
            leaf(w, "boot", &[("dev", "hd")])?;
        }
        Ok(())
    })?;
    node(w, "features", &[], |w| {
        leaf(w, "acpi", &[])?;
        leaf(w, "apic", &[])?;
        if spec.acceleration == Acceleration::Tcg {
            node(w, "tcg", &[], |w| text(w, "tb-cache", &[("unit", "MiB")], &TB_CACHE_MIB.to_string()))?;
        }
        Ok(())
    })?;
    // Newer distributions do not start on QEMU's plain CPU; the built-in image does, a tenth faster than on a full one.
    match (spec.acceleration, &spec.kernel) {
        (Acceleration::Kvm, _) => leaf(w, "cpu", &[("mode", "host-passthrough")])?,
        (Acceleration::Tcg, None) => leaf(w, "cpu", &[("mode", "maximum")])?,
        (Acceleration::Tcg, Some(_)) => {}
    }
    // QEMU goes on counting this timer's periods, 250 in a second, when Linux has long taken the processor's own timer: two
    // thirds of what a guest at rest costs, and most of it where KVM itself is emulated.
    node(w, "clock", &[("offset", "utc")], |w| leaf(w, "timer", &[("name", "hpet"), ("present", "no")]))?;
    text(w, "on_poweroff", &[], "destroy")?;
    text(w, "on_reboot", &[], "restart")?;
    text(w, "on_crash", &[], "destroy")
}

fn devices(w: &mut Xml, spec: &DomainSpec) -> io::Result<()> {
    if let Some(emulator) = &spec.emulator {
        text(w, "emulator", &[], utf8(emulator)?)?;
    }
    let mut disks = ["vda", "vdb"].into_iter();
    if let (Some(path), Some(target)) = (&spec.disk, disks.next()) {
        disk(w, path, "qcow2", target)?;
    }
    if let (Some(path), Some(target)) = (&spec.seed, disks.next()) {
        disk(w, path, "raw", target)?;
    }
    leaf(w, "controller", &[("type", "usb"), ("index", "0"), ("model", "none")])?;
    for nic in &spec.nics {
        interface(w, nic)?;
    }
    node(w, "serial", &[("type", "pty")], |w| {
        leaf(w, "log", &[("file", utf8(&spec.console_log)?), ("append", "off")])?;
        leaf(w, "target", &[("port", "0")])
    })?;
    node(w, "console", &[("type", "pty")], |w| leaf(w, "target", &[("type", "serial"), ("port", "0")]))?;
    node(w, "channel", &[("type", "unix")], |w| {
        leaf(w, "target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
    })?;
    leaf(w, "audio", &[("id", "1"), ("type", "none")])?;
    leaf(w, "memballoon", &[("model", "none")])?;
    node(w, "rng", &[("model", "virtio")], |w| text(w, "backend", &[("model", "random")], "/dev/urandom"))
}

fn disk(w: &mut Xml, path: &Path, format: &str, target: &str) -> io::Result<()> {
    node(w, "disk", &[("type", "file"), ("device", "disk")], |w| {
        leaf(w, "driver", &[("name", "qemu"), ("type", format)])?;
        leaf(w, "source", &[("file", utf8(path)?)])?;
        leaf(w, "target", &[("dev", target), ("bus", "virtio")])?;
        if format == "raw" {
            leaf(w, "readonly", &[])?;
        }
        Ok(())
    })
}

fn interface(w: &mut Xml, nic: &NicSpec) -> io::Result<()> {
    node(w, "interface", &[("type", "ethernet")], |w| {
        leaf(w, "mac", &[("address", &nic.mac.to_string())])?;
        // The tap exists already, on its port and with its VLANs: libvirt neither makes, changes nor removes it.
        leaf(w, "target", &[("dev", &nic.tap), ("managed", "no")])?;
        leaf(w, "model", &[("type", "virtio")])?;
        if nic.mtu != USUAL_MTU {
            leaf(w, "mtu", &[("size", &nic.mtu.to_string())])?;
        }
        leaf(w, "rom", &[("enabled", "no")]) // nothing boots from the network
    })
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))
}

/// An element with nothing in it.
pub(crate) fn leaf(w: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    w.create_element(name).with_attributes(attributes.iter().copied()).write_empty().map(|_| ())
}

/// An element with text in it.
pub(crate) fn text(w: &mut Xml, name: &str, attributes: &[(&str, &str)], content: &str) -> io::Result<()> {
    w.create_element(name)
        .with_attributes(attributes.iter().copied())
        .write_text_content(BytesText::new(content))
        .map(|_| ())
}

/// An element with others in it.
pub(crate) fn node(
    w: &mut Xml,
    name: &str,
    attributes: &[(&str, &str)],
    inside: impl FnOnce(&mut Xml) -> io::Result<()>,
) -> io::Result<()> {
    w.create_element(name).with_attributes(attributes.iter().copied()).write_inner_content(inside).map(|_| ())
}

/// Our mark, as libvirt gives a domain's metadata element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Lab.
    pub lab: String,
    /// Guest.
    pub guest: String,
    /// Digest of the desired domain.
    pub digest: String,
}

/// The mark in a metadata element; `None` for anything that is not one, or not ours.
#[must_use]
pub fn read_mark(metadata: &str) -> Option<Mark> {
    each_element(metadata, |path, element| {
        let last = path.last()?;
        if last.rsplit(':').next() != Some("object") {
            return None;
        }
        // Both become parts of paths; whoever may define domains may write anything here.
        let named = |name| attribute(element, name).filter(|name| names::is_lab(name));
        let (lab, guest) = (named("lab")?, named("guest")?);
        Some(Mark { lab, guest, digest: attribute(element, "digest").unwrap_or_default() })
    })
}

/// The pty of a running domain's first serial console, from its XML.
#[must_use]
pub fn read_console(domain: &str) -> Option<String> {
    each_element(domain, |path, element| match path {
        [_, devices, serial, source] if devices == "devices" && serial == "serial" && source == "source" => {
            attribute(element, "path")
        }
        _ => None,
    })
}

/// Name and mark in a domain's XML that is about to be defined.
#[must_use]
pub fn read_name(domain: &str) -> Option<String> {
    let mut reader = quick_xml::Reader::from_str(domain);
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => path.push(element.name().as_ref().to_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) if path.len() == 2 && path[1] == "name" => {
                return Some(text.trim().to_owned());
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// The emulator in a connection's domain capabilities.
#[must_use]
pub fn read_emulator(capabilities: &str) -> Option<String> {
    let (_, rest) = capabilities.split_once("<path>")?;
    let (path, _) = rest.split_once("</path>")?;
    Some(path.to_owned())
}

/// Calls `look` with the path of names and the start tag of each element, until it finds something.
fn each_element<T>(xml: &str, look: impl Fn(&[String], &BytesStart<'_>) -> Option<T>) -> Option<T> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        let event = reader.read_event().ok()?;
        match &event {
            Event::Start(element) | Event::Empty(element) => {
                path.push(element.name().as_ref().to_owned());
                if let Some(found) = look(&path, element) {
                    return Some(found);
                }
                if matches!(event, Event::Empty(_)) {
                    path.pop();
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok()??;
    Some(attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?.into_owned())
}
