use crate::release::Arch;

/// A file that begins as a program for an architecture does.
pub(crate) fn elf(arch: Arch, content: &[u8]) -> Vec<u8> {
    let machine: u16 = match arch {
        Arch::X86_64 => 62,
        Arch::Arm64 => 183,
    };
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    bytes.resize(16, 0);
    bytes.extend([2, 0]);
    bytes.extend(machine.to_le_bytes());
    bytes.extend(content);
    bytes
}
