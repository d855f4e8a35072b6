//! The two things the image builder asks of ELF files: which libraries a program needs and what a kernel module says
//! about itself. Only little-endian 64-bit files; every read is bounds-checked, since the files come from packages.

use crate::error::{Error, Result};

const SHT_DYNAMIC: u32 = 6; // section type of the dynamic table (ELF gABI, chapter 4)
const PT_LOAD: u32 = 1; // segment type of what is loaded (ELF gABI, chapter 5)
const DT_NEEDED: u64 = 1; // tag of a needed library (ELF gABI, chapter 5)
const HEADER: u16 = 64; // size of a section's header in a 64-bit file (ELF gABI, chapter 4)
/// Longest name of a section or library that is read, in bytes; the C library allows 255 for a file's.
const NAME: usize = 255;

/// One section: name, type, file range, and the index of the section it refers to.
struct Section<'a> {
    name: &'a [u8],
    kind: u32,
    data: &'a [u8],
    link: usize,
}

/// File names of the libraries a program or library needs, in its order; empty for a static program or a script.
pub(crate) fn needed(file: &[u8]) -> Result<Vec<String>> {
    if !is_elf(file) {
        return Ok(Vec::new());
    }
    let sections = sections(file)?;
    let mut names = Vec::new();
    // There is one at most (ELF gABI, chapter 4).
    if let Some(dynamic) = sections.iter().find(|section| section.kind == SHT_DYNAMIC) {
        let strings = sections.get(dynamic.link).map_or(&[][..], |section| section.data);
        for entry in dynamic.data.chunks_exact(16) {
            if u64_at(entry, 0)? == DT_NEEDED {
                names.push(text(string_at(strings, u64_at(entry, 8)?)?));
            }
        }
    }
    Ok(names)
}

/// The `key=value` lines of a kernel module.
pub(crate) fn module_info(file: &[u8]) -> Result<Vec<(String, String)>> {
    let sections = sections(file)?;
    let Some(info) = sections.iter().find(|section| section.name == b".modinfo") else {
        return Err(damaged("it has no .modinfo section"));
    };
    Ok(info
        .data
        .split(|byte| *byte == 0)
        .filter_map(|line| text(line).split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect())
}

/// Memory in bytes that a program or kernel takes before it has started: the sum of its loadable segments.
pub(crate) fn loaded_size(file: &[u8]) -> Result<u64> {
    let start = usize_of(u64_at(file, 0x20)?)?;
    let (size, count) = (usize::from(u16_at(file, 0x36)?), usize::from(u16_at(file, 0x38)?));
    let mut sum = 0_u64;
    for index in 0..count {
        let header = slice(file, index.checked_mul(size).and_then(|offset| offset.checked_add(start)), 56)?;
        if u32_at(header, 0)? == PT_LOAD {
            sum = sum.saturating_add(u64_at(header, 0x28)?);
        }
    }
    Ok(sum)
}

/// Gives a section another name of the same length, so that who looks for it by name finds nothing.
pub(crate) fn rename_section(file: &mut [u8], from: &[u8], to: &[u8]) -> Result<()> {
    let (names, offset) = {
        let all = sections(file)?;
        let index = usize::from(u16_at(file, 0x3e)?);
        let Some(names) = all.get(index).map(|section| section.data) else { return Ok(()) };
        let wanted = [b"\0", from, b"\0"].concat();
        match names.windows(wanted.len()).position(|window| window == wanted) {
            Some(found) => (names.as_ptr() as usize - file.as_ptr() as usize, found + 1),
            None => return Ok(()),
        }
    };
    let place = file.get_mut(names + offset..names + offset + from.len());
    match place {
        Some(place) if to.len() == from.len() => place.copy_from_slice(to),
        _ => return Err(damaged("a section cannot be renamed")),
    }
    Ok(())
}

/// Whether the file is ELF at all.
pub(crate) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

fn sections(file: &[u8]) -> Result<Vec<Section<'_>>> {
    if !is_elf(file) || file.get(4..6) != Some(&[2, 1]) {
        return Err(damaged("it is not a little-endian 64-bit ELF file"));
    }
    let table = usize_of(u64_at(file, 0x28)?)?;
    let (size, count, names) = (u16_at(file, 0x3a)?, u16_at(file, 0x3c)?, u16_at(file, 0x3e)?);
    if size != HEADER && count > 0 {
        return Err(damaged("its section headers have an odd size"));
    }
    let mut found = Vec::with_capacity(count.into());
    let mut name_offsets = Vec::with_capacity(count.into());
    for index in 0..usize::from(count) {
        let start = index.checked_mul(size.into()).and_then(|offset| offset.checked_add(table));
        let header = slice(file, start, 64)?;
        let kind = u32_at(header, 4)?;
        let data = match kind {
            8 => &[][..], // SHT_NOBITS takes no room in the file
            _ => slice(file, Some(usize_of(u64_at(header, 0x18)?)?), usize_of(u64_at(header, 0x20)?)?)?,
        };
        name_offsets.push(u64::from(u32_at(header, 0)?));
        found.push(Section { name: b"", kind, data, link: u32_at(header, 0x28)? as usize });
    }
    let strings = found.get(usize::from(names)).map_or(&[][..], |section| section.data);
    for (section, offset) in found.iter_mut().zip(name_offsets) {
        section.name = string_at(strings, offset).unwrap_or_default();
    }
    Ok(found)
}

fn slice(file: &[u8], start: Option<usize>, len: usize) -> Result<&[u8]> {
    start
        .and_then(|start| file.get(start..start.checked_add(len)?))
        .ok_or_else(|| damaged("it ends too early"))
}

fn string_at(strings: &[u8], offset: u64) -> Result<&[u8]> {
    let rest = strings.get(usize_of(offset)?..).ok_or_else(|| damaged("a name lies outside its table"))?;
    let rest = rest.get(..=NAME).unwrap_or(rest);
    match rest.iter().position(|byte| *byte == 0) {
        Some(end) => Ok(&rest[..end]),
        None => Err(damaged("a name does not end")),
    }
}

fn array<const N: usize>(data: &[u8], offset: usize) -> Result<[u8; N]> {
    slice(data, Some(offset), N)?.try_into().map_err(|_| damaged("it ends too early"))
}

fn u16_at(data: &[u8], offset: usize) -> Result<u16> {
    array(data, offset).map(u16::from_le_bytes)
}

fn u32_at(data: &[u8], offset: usize) -> Result<u32> {
    array(data, offset).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], offset: usize) -> Result<u64> {
    array(data, offset).map(u64::from_le_bytes)
}

fn usize_of(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| damaged("an offset is too large"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn damaged(why: &str) -> Error {
    Error::failed("cannot read an ELF file").caused_by(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_needs_the_c_library() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&program).unwrap().iter().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn every_cut_of_a_file_is_refused_or_read_without_panic() {
        let program = std::fs::read("/bin/true").unwrap();
        for len in (0..program.len()).step_by(97) {
            let _ = needed(&program[..len]);
            let _ = module_info(&program[..len]);
        }
        assert_eq!(needed(b"#!/bin/sh\n").unwrap(), Vec::<String>::new());
        assert!(module_info(b"\x7fELF").is_err());
    }
}
