//! A shared library as bytes, read the way the dynamic loader would: by program headers, not by sections, which may
//! be stripped. Every offset in the file is taken for hostile: what lies outside the file is an error here, because
//! it would be a SIGBUS in the loader.

use object::LittleEndian as LE;
use object::elf::{self, DynamicTag, FileHeader64, Machine, ProgramHeader64, Sym64};
use object::read::elf::{
    FileHeader as _, GnuHashTable, HashTable, ProgramHeader as _, SectionHeader as _, Sym as _,
};
use object::read::{ReadRef as _, StringTable};

use super::InspectError;

/// The machine this daemon, and so its plugin hosts, was built for.
#[cfg(target_arch = "x86_64")]
const HOST: Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const HOST: Machine = elf::EM_AARCH64;
#[cfg(target_arch = "riscv64")]
const HOST: Machine = elf::EM_RISCV;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
compile_error!("Warren runs plugins on x86-64, aarch64 and riscv64: name the ELF machine of this one here");

/// More dynamic entries than any linker writes; a real library has about thirty.
const MAX_DYNAMIC: usize = 4096;

/// A shared library whose structure lies inside its bytes.
pub(super) struct Elf<'d> {
    data: &'d [u8],
    segments: &'d [ProgramHeader64<LE>],
    dynamic: Vec<(DynamicTag, u64)>,
    strings: StringTable<'d>,
    symbols: &'d [Sym64<LE>],
}

impl<'d> Elf<'d> {
    /// Checks that `data` is a shared library for this machine and that nothing of it lies outside the file.
    pub(super) fn parse(data: &'d [u8]) -> Result<Self, InspectError> {
        identify(data)?;
        let damaged = |what| move |_| InspectError::Damaged { what };
        let header = FileHeader64::<LE>::parse(data).map_err(damaged("ELF header"))?;
        let table = |entry: u16, count: u16| u64::from(entry) * u64::from(count);
        let size = table(header.e_phentsize(LE), header.e_phnum(LE));
        inside(data, header.e_phoff(LE), size, "its table of program headers")?;
        let size = table(header.e_shentsize(LE), header.e_shnum(LE));
        inside(data, header.e_shoff(LE), size, "its table of section headers")?;
        let segments = header.program_headers(LE, data).map_err(damaged("table of program headers"))?;
        for segment in segments {
            check_segment(segment, data)?;
        }
        let sections = header.section_headers(LE, data).map_err(damaged("table of section headers"))?;
        for section in sections {
            if let Some((offset, size)) = section.file_range(LE) {
                inside(data, offset, size, "a section")?;
            }
        }
        let mut this =
            Self { data, segments, dynamic: Vec::new(), strings: StringTable::default(), symbols: &[] };
        this.dynamic = this.read_dynamic()?;
        this.check_dynamic_ranges()?;
        this.strings = this.read_strings()?;
        this.symbols = this.read_symbols()?;
        if this.value(elf::DT_FLAGS_1).is_some_and(|flags| flags & elf::DF_1_PIE.0 != 0) {
            return Err(InspectError::NotShared { kind: "an executable program" });
        }
        Ok(this)
    }

    /// The descriptors of every note of this owner and type, from the segments the loader maps.
    pub(super) fn notes(&self, owner: &[u8], kind: u32) -> Result<Vec<&'d [u8]>, InspectError> {
        let damaged = |_| InspectError::Damaged { what: "note segment" };
        let mut found = Vec::new();
        for segment in self.segments {
            let Some(mut notes) = segment.notes(LE, self.data).map_err(damaged)? else { continue };
            while let Some(note) = notes.next().map_err(damaged)? {
                if note.name() == owner && note.n_type(LE).0 == kind {
                    found.push(note.desc());
                }
            }
        }
        Ok(found)
    }

    /// The strings of every dynamic entry with this tag, e.g. the libraries needed. What is not UTF-8 is replaced.
    pub(super) fn texts(&self, tag: DynamicTag) -> Result<Vec<String>, InspectError> {
        self.dynamic
            .iter()
            .filter(|entry| entry.0 == tag)
            .map(|&(_, offset)| {
                let text = u32::try_from(offset).ok().and_then(|offset| self.strings.get(offset).ok());
                let text = text.ok_or(InspectError::Damaged { what: "dynamic string" })?;
                Ok(String::from_utf8_lossy(text).into_owned())
            })
            .collect()
    }

    /// Whether a function of this name can be found by `dlsym`.
    pub(super) fn exports_function(&self, name: &[u8]) -> bool {
        let callable = |symbol: &&Sym64<LE>| {
            matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_NOTYPE | elf::STT_GNU_IFUNC)
                && matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK)
                && matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED)
                && symbol.st_shndx(LE) != elf::SHN_UNDEF
                && self.mapped(symbol.st_value(LE)).is_some()
        };
        let named = |symbol: &Sym64<LE>| self.strings.get(symbol.st_name(LE)) == Ok(name);
        self.symbols.iter().filter(callable).any(named)
    }

    fn read_dynamic(&self) -> Result<Vec<(DynamicTag, u64)>, InspectError> {
        const WHAT: InspectError = InspectError::Damaged { what: "dynamic segment" };
        let mut segments = self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_DYNAMIC);
        let segment =
            segments.next().ok_or(InspectError::NotShared { kind: "a file without a dynamic segment" })?;
        let entries = segment.dynamic(LE, self.data).map_err(|_| WHAT)?.ok_or(WHAT)?;
        // The loader reads it where it is mapped, this function where it is in the file: it must be the same bytes.
        let same = self.file_offset(segment.p_vaddr(LE)) == Some(segment.p_offset(LE));
        let end = entries.iter().position(|entry| entry.d_tag.get(LE) == elf::DT_NULL).ok_or(WHAT)?;
        if !same || segments.next().is_some() || end > MAX_DYNAMIC {
            return Err(WHAT);
        }
        Ok(entries[..end].iter().map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE))).collect())
    }

    /// The loader follows these without asking.
    fn check_dynamic_ranges(&self) -> Result<(), InspectError> {
        const SIZED: [(DynamicTag, DynamicTag, &str); 6] = [
            (elf::DT_STRTAB, elf::DT_STRSZ, "dynamic string table"),
            (elf::DT_RELA, elf::DT_RELASZ, "relocation table"),
            (elf::DT_RELR, elf::DT_RELRSZ, "relative relocation table"),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ, "table of function relocations"),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, "table of constructors"),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, "table of destructors"),
        ];
        const UNSIZED: [(DynamicTag, &str); 8] = [
            (elf::DT_SYMTAB, "dynamic symbol table"),
            (elf::DT_HASH, "symbol hash table"),
            (elf::DT_GNU_HASH, "symbol hash table"),
            (elf::DT_VERSYM, "symbol version table"),
            (elf::DT_VERNEED, "symbol version table"),
            (elf::DT_VERDEF, "symbol version table"),
            (elf::DT_INIT, "constructor"),
            (elf::DT_FINI, "destructor"),
        ];
        for (address, size, what) in SIZED {
            let size = self.value(size).unwrap_or(0);
            if let Some(address) = self.value(address).filter(|_| size > 0) {
                let room = self.mapped(address).map_or(0, |rest| rest.len() as u64);
                if room < size {
                    return Err(InspectError::Damaged { what });
                }
            }
        }
        for (address, what) in UNSIZED {
            if self.value(address).is_some_and(|address| self.mapped(address).is_none()) {
                return Err(InspectError::Damaged { what });
            }
        }
        Ok(())
    }

    fn read_strings(&self) -> Result<StringTable<'d>, InspectError> {
        const WHAT: InspectError = InspectError::Damaged { what: "dynamic string table" };
        let address = self.value(elf::DT_STRTAB).ok_or(WHAT)?;
        let size = self.value(elf::DT_STRSZ).ok_or(WHAT)?;
        let start = self.file_offset(address).ok_or(WHAT)?;
        Ok(StringTable::new(self.data, start, start.checked_add(size).ok_or(WHAT)?))
    }

    fn read_symbols(&self) -> Result<&'d [Sym64<LE>], InspectError> {
        const WHAT: InspectError = InspectError::Damaged { what: "dynamic symbol table" };
        const HASH: InspectError = InspectError::Damaged { what: "symbol hash table" };
        let table = |tag| self.value(tag).and_then(|address| self.mapped(address));
        // Only the hash tables know how many symbols there are.
        let count = if let Some(hash) = table(elf::DT_GNU_HASH) {
            let hash = GnuHashTable::<FileHeader64<LE>>::parse(LE, hash).map_err(|_| HASH)?;
            hash.symbol_table_length(LE).unwrap_or(0) // none: it exports nothing
        } else if let Some(hash) = table(elf::DT_HASH) {
            HashTable::<FileHeader64<LE>>::parse(LE, hash).map_err(|_| HASH)?.symbol_table_length()
        } else {
            0
        };
        if count == 0 {
            return Ok(&[]);
        }
        let symbols = table(elf::DT_SYMTAB).ok_or(WHAT)?;
        symbols.read_slice_at(0, count as usize).map_err(|()| WHAT)
    }

    fn value(&self, tag: DynamicTag) -> Option<u64> {
        self.dynamic.iter().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The file's bytes from a mapped address to the end of the segment it lies in.
    fn mapped(&self, address: u64) -> Option<&'d [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD).find_map(|segment| {
            let into = usize::try_from(address.checked_sub(segment.p_vaddr(LE))?).ok()?;
            segment.data(LE, self.data).ok()?.get(into..).filter(|rest| !rest.is_empty())
        })
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        let rest = self.mapped(address)?;
        Some((rest.as_ptr() as usize - self.data.as_ptr() as usize) as u64)
    }
}

/// The descriptors of every note of this owner and type in whatever 64-bit ELF file this is, whole or not.
pub(super) fn notes_of_any<'d>(data: &'d [u8], owner: &[u8], kind: u32) -> Vec<&'d [u8]> {
    let Ok(header) = FileHeader64::<LE>::parse(data) else { return Vec::new() };
    if !header.is_little_endian() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for segment in header.program_headers(LE, data).unwrap_or_default() {
        let Ok(Some(mut notes)) = segment.notes(LE, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == owner && note.n_type(LE).0 == kind {
                found.push(note.desc());
            }
        }
    }
    found
}

/// Looks at the first bytes only, so that what is no plugin at all is named as what it is.
fn identify(data: &[u8]) -> Result<(), InspectError> {
    const HEADER: usize = size_of::<FileHeader64<LE>>();
    if data.is_empty() {
        return Err(InspectError::Empty);
    }
    let magic = data.len().min(elf::ELFMAG.len());
    if data[..magic] != elf::ELFMAG[..magic] {
        return Err(text_start(data).map_or(InspectError::NotElf, |start| InspectError::Text { start }));
    }
    let header = data.get(..HEADER).ok_or(InspectError::Truncated {
        what: "the ELF header",
        end: HEADER as u64,
        len: data.len() as u64,
    })?;
    let big = header[5] == elf::ELFDATA2MSB.0;
    let word = |at: usize| {
        let bytes = [header[at], header[at + 1]];
        if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    };
    let machine = Machine(word(18));
    if big || header[4] != elf::ELFCLASS64.0 || machine != HOST {
        let found = machine_name(machine, header[4] == elf::ELFCLASS32.0);
        return Err(InspectError::Machine { found, host: host_machine() });
    }
    match elf::FileType(word(16)) {
        elf::ET_DYN => Ok(()),
        elf::ET_REL => Err(InspectError::NotShared { kind: "an object file (`.o`)" }),
        elf::ET_EXEC => Err(InspectError::NotShared { kind: "an executable program" }),
        elf::ET_CORE => Err(InspectError::NotShared { kind: "a core dump" }),
        _ => Err(InspectError::NotShared { kind: "an ELF file of an unknown type" }),
    }
}

/// The beginning of the file, when it reads like text.
fn text_start(data: &[u8]) -> Option<String> {
    const LOOK: usize = 256;
    const SHOW: usize = 40;
    let head = &data[..data.len().min(LOOK)];
    if head.iter().any(|&byte| byte == 0x7f || (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'))) {
        return None;
    }
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Some(String::from_utf8_lossy(line).trim().chars().take(SHOW).collect())
}

fn check_segment(segment: &ProgramHeader64<LE>, data: &[u8]) -> Result<(), InspectError> {
    let (offset, size) = segment.file_range(LE);
    inside(data, offset, size, "a segment")?;
    let (address, memory, align) = (segment.p_vaddr(LE), segment.p_memsz(LE), segment.p_align(LE));
    let loads = segment.p_type(LE) == elf::PT_LOAD;
    let misplaced = align > 1 && (!align.is_power_of_two() || address % align != offset % align);
    if loads && (memory < size || address.checked_add(memory).is_none() || misplaced) {
        return Err(InspectError::Damaged { what: "program header" });
    }
    Ok(())
}

fn inside(data: &[u8], offset: u64, size: u64, what: &'static str) -> Result<(), InspectError> {
    let len = data.len() as u64;
    match offset.checked_add(size) {
        Some(end) if end <= len => Ok(()),
        Some(end) => Err(InspectError::Truncated { what, end, len }),
        None => Err(InspectError::Damaged { what }),
    }
}

/// The machine plugins must be built for, as `uname -m` names it.
pub(super) fn host_machine() -> &'static str {
    std::env::consts::ARCH
}

/// As `uname -m` names it; one machine number stands for the 32-bit and the 64-bit kind of some.
fn machine_name(machine: Machine, narrow: bool) -> String {
    let name = match machine {
        elf::EM_RISCV if !narrow => "riscv64".to_owned(),
        elf::EM_LOONGARCH if !narrow => "loongarch64".to_owned(),
        elf::EM_386 => "i386".to_owned(),
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_ARM => "arm".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_PPC64 => "powerpc64".to_owned(),
        elf::EM_S390 => "s390x".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_LOONGARCH => "loongarch".to_owned(),
        Machine(number) => format!("machine {number}"),
    };
    if narrow { format!("32-bit {name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_plugins_is_the_one_of_this_program() {
        assert_eq!(machine_name(HOST, false), host_machine());
        assert_eq!(machine_name(elf::EM_RISCV, false), "riscv64");
        assert_eq!(machine_name(elf::EM_RISCV, true), "32-bit riscv");
    }
}
