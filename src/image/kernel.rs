//! The guest's kernel: an uncompressed image, which boots a second or more faster under emulation than one that
//! unpacks itself, and the modules the image carries with the tables `modprobe` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::elf;
use super::packages::Tree;
use crate::error::{Context, Error, Result};

/// Modules carried where the kernel has them as modules. Everything they depend on comes with them.
const MODULES: &[&str] = &[
    // devices
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_console",
    "button",
    "evdev",
    // the seed
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    // networking
    "ipv6",
    "af_packet",
    "8021q",
    "dummy",
    "veth",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    // what nf_conntrack and others ask for by alias
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
];
/// Prefixes of further modules: nftables and connection tracking.
const PREFIXES: &[&str] = &["nf_", "nft_", "nfnetlink"];
/// Not carried although a prefix matches: of no use here, and memory is what the guest has least of.
const LEFT_OUT: &[&str] = &[
    "nf_conntrack_amanda",
    "nf_conntrack_h323",
    "nf_conntrack_irc",
    "nf_conntrack_netbios_ns",
    "nf_conntrack_pptp",
    "nf_conntrack_sane",
    "nf_conntrack_sip",
    "nf_conntrack_snmp",
    "nf_conntrack_tftp",
    "nf_nat_amanda",
    "nf_nat_h323",
    "nf_nat_irc",
    "nf_nat_pptp",
    "nf_nat_sip",
    "nf_nat_snmp_basic",
    "nf_nat_tftp",
    "nfnetlink_acct",
    "nfnetlink_cthelper",
    "nfnetlink_cttimeout",
    "nfnetlink_osf",
    "nfnetlink_queue",
    "nft_compat",
    "nft_osf",
    "nft_queue",
    "nft_tunnel",
    "nft_xfrm",
];
/// Without these, as modules or built in, the image cannot do its work.
const REQUIRED: &[&str] =
    &["virtio_pci", "virtio_net", "virtio_blk", "virtio_console", "vfat", "8021q", "nf_tables"];

/// Ends a signed module.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The modules of an image.
pub(super) struct Modules {
    /// Kernel release: the name of the directory below `/lib/modules`.
    pub(super) release: String,
    /// File name (`virtio_net.ko`) and contents.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// `modules.dep`.
    pub(super) dependencies: String,
    /// `modules.alias`.
    pub(super) aliases: String,
}

struct Module {
    file: String,
    data: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The uncompressed kernel inside a bzImage. Falls back to the bzImage itself when its compression is unknown: it boots
/// as well, only slower.
pub(super) fn uncompressed(tree: &Tree, image: &Path) -> Result<Vec<u8>> {
    let file = fs::read(image).context(|| format!("cannot read {}", image.display()))?;
    if elf::is_elf(&file) {
        return Ok(file);
    }
    Ok(payload(&file).and_then(|packed| unpack(tree, packed)).unwrap_or(file))
}

/// The compressed payload of a bzImage, by the setup header (Documentation/arch/x86/boot.rst of the kernel: setup_sects
/// at 0x1f1, payload_offset at 0x248, payload_length at 0x24c).
pub(crate) fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let number = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = match *image.get(0x1f1)? {
        0 => 4, // the header's own default
        count => usize::from(count),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    image.get(start..start.checked_add(number(0x24c)?)?)
}

/// Unpacks a payload by its magic number; the kernel appends the unpacked size (4 bytes), which the filters must not
/// see, since `lz4` and `zstd` take it for a damaged frame.
fn unpack(tree: &Tree, packed: &[u8]) -> Option<Vec<u8>> {
    let (body, size) = packed.split_at_checked(packed.len().checked_sub(4)?)?;
    let (program, arguments): (&str, &[&str]) = match body.get(..4)? {
        [0x02, 0x21, 0x4c, 0x18] => ("lz4", &["-dc"]),
        [0x28, 0xb5, 0x2f, 0xfd] => ("zstd", &["-dcq"]),
        [0xfd, b'7', b'z', b'X'] => ("xz", &["-dc", "--single-stream"]),
        [0x1f, 0x8b, ..] => ("gzip", &["-dc"]),
        _ => return None,
    };
    let kernel = tree.filter(program, arguments, body.to_vec()).ok()?;
    let size = usize::try_from(u32::from_le_bytes(size.try_into().ok()?)).ok()?;
    (elf::is_elf(&kernel) && kernel.len() == size).then_some(kernel)
}

/// Chooses and reads the modules below a `/lib/modules/RELEASE` directory.
pub(super) fn modules(tree: &Tree, directory: &Path) -> Result<Modules> {
    let release = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let available = find(&directory.join("kernel"));
    let built_in: BTreeSet<String> = fs::read_to_string(directory.join("modules.builtin"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| module_name(Path::new(line)))
        .collect();
    let lacking: Vec<&str> = REQUIRED
        .iter()
        .filter(|name| !available.contains_key(**name) && !built_in.contains(**name))
        .copied()
        .collect();
    if !lacking.is_empty() {
        return Err(Error::host(format!(
            "kernel {release} lacks modules for the guest image: {}",
            lacking.join(", ")
        )));
    }
    let mut queue: Vec<String> = available.keys().filter(|name| wanted(name)).cloned().collect();
    let mut chosen: BTreeMap<String, Module> = BTreeMap::new();
    while let Some(name) = queue.pop() {
        let Some(path) = available.get(&name).filter(|_| !chosen.contains_key(&name)) else { continue };
        let module = read(tree, &name, path)?;
        queue.extend(module.depends.iter().cloned());
        chosen.insert(name, module);
    }
    let mut dependencies = String::new();
    let mut aliases = String::new();
    for (name, module) in &chosen {
        let mut line = Vec::new();
        closure(&chosen, name, &mut line);
        dependencies.push_str(&format!("{}:", module.file));
        // `modprobe` loads from the end of the line to its beginning.
        for file in line.iter().rev().filter_map(|name| chosen.get(name)).map(|module| &module.file) {
            dependencies.push_str(&format!(" {file}"));
        }
        dependencies.push('\n');
        for alias in &module.aliases {
            aliases.push_str(&format!("alias {alias} {name}\n"));
        }
    }
    let files = chosen.into_values().map(|module| (module.file, module.data)).collect();
    Ok(Modules { release, files, dependencies, aliases })
}

fn wanted(name: &str) -> bool {
    MODULES.contains(&name)
        || (PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !LEFT_OUT.contains(&name)
            && !name.ends_with("_bridge"))
}

/// Appends what `name` depends on, each after what it depends on itself. Modules that depend on one another in a circle,
/// which no kernel has, are in no particular order.
fn closure(modules: &BTreeMap<String, Module>, name: &str, out: &mut Vec<String>) {
    let mut met = BTreeSet::from([name.to_owned()]);
    // What is open, each with how many of its dependencies were looked at: a stack of our own, since a package decides
    // how deep this goes.
    let mut open = vec![(name.to_owned(), 0)];
    while let Some((name, next)) = open.last_mut() {
        let depends = modules.get(name.as_str()).map_or(&[][..], |module| &module.depends);
        match depends.get(*next) {
            Some(dependency) => {
                *next += 1;
                if met.insert(dependency.clone()) {
                    open.push((dependency.clone(), 0));
                }
            }
            None => out.extend(open.pop().map(|(name, _)| name)),
        }
    }
    out.pop(); // the module itself comes last
}

/// Every module below a directory by name.
fn find(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(directory) = queue.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => queue.push(entry.path()),
                _ => {
                    if let Some(name) = module_name(&entry.path()) {
                        found.insert(name, entry.path());
                    }
                }
            }
        }
    }
    found
}

/// `virtio_rng` for `virtio-rng.ko.xz`: the kernel takes both characters for the same.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"].contains(&rest).then(|| name.replace('-', "_"))
}

fn read(tree: &Tree, name: &str, path: &Path) -> Result<Module> {
    let failed = || format!("cannot read kernel module {}", path.display());
    let data = fs::read(path).context(failed)?;
    let data = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => tree.filter("xz", &["-dc"], data)?,
        Some("zst") => tree.filter("zstd", &["-dcq"], data)?,
        Some("gz") => tree.filter("gzip", &["-dc"], data)?,
        _ => data,
    };
    let (mut depends, mut aliases) = (Vec::new(), Vec::new());
    for (key, value) in elf::module_info(&data).map_err(|error| error.context(failed()))? {
        match key.as_str() {
            "depends" => depends
                .extend(value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_"))),
            "alias" => aliases.push(value),
            _ => {}
        }
    }
    let data = lean(data).map_err(|error| error.context(failed()))?;
    Ok(Module { file: format!("{name}.ko"), data, depends, aliases })
}

/// A module without what costs time when it is loaded: under emulation, checking its signature and reading its type
/// information (for BPF, unused here) take two thirds of loading it. The packages' own signatures were checked by apt.
pub(crate) fn lean(mut data: Vec<u8>) -> Result<Vec<u8>> {
    if let Some(body) = data.strip_suffix(SIGNED) {
        // `struct module_signature` (kernel: include/linux/module_signature.h): 12 bytes, the last four the length of
        // what precedes them, in big-endian order.
        let length = body.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
        let end = body.len().saturating_sub(12).saturating_sub(length);
        data.truncate(end);
    }
    elf::rename_section(&mut data, b".BTF", b".btf")?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &[&str]) -> Module {
        let depends = depends.iter().map(|name| (*name).to_owned()).collect();
        Module { file: String::new(), data: Vec::new(), depends, aliases: Vec::new() }
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let modules = BTreeMap::from([
            ("ring".to_owned(), module(&[])),
            ("virtio".to_owned(), module(&["ring"])),
            ("failover".to_owned(), module(&[])),
            ("net".to_owned(), module(&["virtio", "failover", "ring"])),
        ]);
        let mut order = Vec::new();
        closure(&modules, "net", &mut order);
        assert_eq!(order, ["ring", "virtio", "failover"]);
        let circle = BTreeMap::from([("a".to_owned(), module(&["b"])), ("b".to_owned(), module(&["a"]))]);
        let mut order = Vec::new();
        closure(&circle, "a", &mut order);
        assert_eq!(order, ["b"]);
    }

    #[test]
    fn a_signature_is_cut_off_and_a_damaged_one_is_an_error() {
        let program = fs::read("/bin/true").unwrap();
        let mut signed = program.clone();
        signed.extend_from_slice(&[7; 300]);
        signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 44]);
        signed.extend_from_slice(SIGNED);
        assert!(lean(signed).unwrap() == program);
        assert!(lean([&[0xff; 20][..], SIGNED].concat()).is_err());
    }

    #[test]
    fn names_are_those_the_kernel_uses() {
        assert_eq!(module_name(Path::new("a/virtio-rng.ko.zst")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("modules.dep")), None);
    }

    #[test]
    fn a_short_or_foreign_image_has_no_payload() {
        assert_eq!(payload(&[]), None);
        assert_eq!(payload(&[0xff; 0x400]), None);
    }
}
