//! Numbers of system calls by name, for each architecture that a kernel runs beside the one it is built for. Tables
//! only; nothing here knows what a profile is.

mod table;

/// A row's number where the architecture lacks the call.
const NONE: u32 = u32::MAX;

/// An instruction set with its own table of calls, as seccomp tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// `arch` of seccomp_data (AUDIT_ARCH_*): machine number, 64-bit flag 1 << 31, little endian flag 1 << 30.
    pub fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xC000_003E,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are compared in all 64 bits.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }
}

/// Set in every number of x32.
pub const X32_BIT: u32 = 1 << 30;

/// Names that a profile may use; those of other machines are accepted and never matter.
pub const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// The architectures of one kernel, its own first, with their tables.
#[derive(Debug)]
pub struct Family {
    pub members: &'static [Arch],
    numbers: &'static [[u16; 3]; COUNT],
}

/// What an x86-64 kernel runs.
pub static X86: Family =
    Family { members: &[Arch::X86_64, Arch::X86, Arch::X32], numbers: &numbers([Arch::X86_64, Arch::X86, Arch::X32]) };
/// What an aarch64 kernel runs.
pub static ARM: Family =
    Family { members: &[Arch::Aarch64, Arch::Arm], numbers: &numbers([Arch::Aarch64, Arch::Arm, Arch::Arm]) };

impl Family {
    /// Of the machine that rrun is built for.
    pub fn native() -> &'static Self {
        #[cfg(target_arch = "x86_64")]
        return &X86;
        #[cfg(target_arch = "aarch64")]
        return &ARM;
    }

    pub fn own(&self) -> Arch {
        self.members[0]
    }

    /// With x32's bit.
    pub fn number(&self, call: Call, arch: Arch) -> Option<u32> {
        let member = self.members.iter().position(|member| *member == arch)?;
        match self.numbers[usize::from(call.0)][member] {
            ABSENT => None,
            private if private >= PRIVATE => Some(ARM_PRIVATE + u32::from(private - PRIVATE)),
            number if arch == Arch::X32 => Some(u32::from(number) | X32_BIT),
            number => Some(number.into()),
        }
    }

    /// The name of a number, for people.
    pub fn name(&self, number: u32, arch: Arch) -> Option<&'static str> {
        (0..COUNT as u16).map(Call).find(|call| self.number(*call, arch) == Some(number)).map(Call::name)
    }
}

/// A name that some architecture knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u16);

impl Call {
    pub fn named(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, COUNT);
        while low < high {
            let middle = (low + high) / 2;
            match at(middle).cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(Self(middle as u16)),
            }
        }
        None
    }

    pub fn name(self) -> &'static str {
        std::str::from_utf8(at(self.0.into())).unwrap_or_default()
    }

    /// The call that x86 programs may make instead, and its first argument then.
    pub fn through(self, arch: Arch) -> Option<(Multiplexer, u8)> {
        if arch == Arch::X86 { THROUGH[usize::from(self.0)] } else { None }
    }

    /// Those that programs make often, and how often in relation to each other.
    pub fn common() -> impl Iterator<Item = (Self, u32)> {
        ROW_OF_COMMON.iter().zip(&COMMON).map(|(row, (_, weight))| (Self(*row), u32::from(*weight)))
    }
}

/// Of a thousand calls of ordinary programs (servers, shells, build tools) so many; the others are rare.
const COMMON: [(&str, u8); 40] = [
    ("read", 160),
    ("write", 110),
    ("futex", 120),
    ("epoll_wait", 70),
    ("epoll_pwait", 40),
    ("openat", 60),
    ("close", 70),
    ("fstat", 35),
    ("newfstatat", 35),
    ("stat", 10),
    ("lseek", 20),
    ("mmap", 40),
    ("munmap", 20),
    ("mprotect", 20),
    ("brk", 8),
    ("madvise", 10),
    ("rt_sigaction", 25),
    ("rt_sigprocmask", 25),
    ("poll", 25),
    ("ppoll", 8),
    ("select", 4),
    ("pselect6", 4),
    ("recvfrom", 30),
    ("sendto", 25),
    ("recvmsg", 20),
    ("sendmsg", 15),
    ("readv", 5),
    ("writev", 15),
    ("pread64", 12),
    ("pwrite64", 8),
    ("epoll_ctl", 15),
    ("accept4", 8),
    ("fcntl", 20),
    ("ioctl", 12),
    ("getpid", 8),
    ("gettid", 6),
    ("sched_yield", 10),
    ("nanosleep", 6),
    ("clock_nanosleep", 6),
    ("getdents64", 4),
];

/// Calls that x86 programs also make through one call for all of them, whose first argument says which: its name and
/// that number (linux/net.h, linux/ipc.h).
const MULTIPLEXED: [(&str, Multiplexer, u8); 32] = [
    ("socket", Multiplexer::Socketcall, 1),
    ("bind", Multiplexer::Socketcall, 2),
    ("connect", Multiplexer::Socketcall, 3),
    ("listen", Multiplexer::Socketcall, 4),
    ("accept", Multiplexer::Socketcall, 5),
    ("getsockname", Multiplexer::Socketcall, 6),
    ("getpeername", Multiplexer::Socketcall, 7),
    ("socketpair", Multiplexer::Socketcall, 8),
    ("send", Multiplexer::Socketcall, 9),
    ("recv", Multiplexer::Socketcall, 10),
    ("sendto", Multiplexer::Socketcall, 11),
    ("recvfrom", Multiplexer::Socketcall, 12),
    ("shutdown", Multiplexer::Socketcall, 13),
    ("setsockopt", Multiplexer::Socketcall, 14),
    ("getsockopt", Multiplexer::Socketcall, 15),
    ("sendmsg", Multiplexer::Socketcall, 16),
    ("recvmsg", Multiplexer::Socketcall, 17),
    ("accept4", Multiplexer::Socketcall, 18),
    ("recvmmsg", Multiplexer::Socketcall, 19),
    ("sendmmsg", Multiplexer::Socketcall, 20),
    ("semop", Multiplexer::Ipc, 1),
    ("semget", Multiplexer::Ipc, 2),
    ("semctl", Multiplexer::Ipc, 3),
    ("semtimedop", Multiplexer::Ipc, 4),
    ("msgsnd", Multiplexer::Ipc, 11),
    ("msgrcv", Multiplexer::Ipc, 12),
    ("msgget", Multiplexer::Ipc, 13),
    ("msgctl", Multiplexer::Ipc, 14),
    ("shmat", Multiplexer::Ipc, 21),
    ("shmdt", Multiplexer::Ipc, 22),
    ("shmget", Multiplexer::Ipc, 23),
    ("shmctl", Multiplexer::Ipc, 24),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplexer {
    Socketcall,
    Ipc,
}

impl Multiplexer {
    /// On x86.
    pub fn number(self) -> u32 {
        match self {
            Self::Socketcall => 102,
            Self::Ipc => 117,
        }
    }
}

// The rows in a form without pointers, which a static executable would have to relocate at every start.
const COUNT: usize = table::ROWS.len();
const LENGTH: usize = {
    let (mut length, mut row) = (0, 0);
    while row < COUNT {
        length += table::ROWS[row].0.len();
        row += 1;
    }
    length
};
static NAMES: [u8; LENGTH] = {
    let (mut names, mut length, mut row) = ([0; LENGTH], 0, 0);
    while row < COUNT {
        let name = table::ROWS[row].0.as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[length] = name[at];
            (length, at) = (length + 1, at + 1);
        }
        row += 1;
    }
    names
};
static STARTS: [u16; COUNT + 1] = {
    let (mut starts, mut row) = ([0; COUNT + 1], 0);
    while row < COUNT {
        starts[row + 1] = starts[row] + table::ROWS[row].0.len() as u16;
        row += 1;
    }
    starts
};
static ROW_OF_COMMON: [u16; COMMON.len()] = {
    let (mut rows, mut common) = ([0; COMMON.len()], 0);
    while common < COMMON.len() {
        rows[common] = row_of(COMMON[common].0);
        common += 1;
    }
    rows
};
static THROUGH: [Option<(Multiplexer, u8)>; COUNT] = {
    let (mut through, mut call) = ([None; COUNT], 0);
    while call < MULTIPLEXED.len() {
        through[row_of(MULTIPLEXED[call].0) as usize] = Some((MULTIPLEXED[call].1, MULTIPLEXED[call].2));
        call += 1;
    }
    through
};
const ABSENT: u16 = u16::MAX;
/// Calls of arm that are no entries of its table (breakpoint, cacheflush …) have numbers from here.
const ARM_PRIVATE: u32 = 0xF_0000;
const PRIVATE: u16 = 0xF000;

const fn numbers(columns: [Arch; 3]) -> [[u16; 3]; COUNT] {
    let (mut numbers, mut row) = ([[0; 3]; COUNT], 0);
    while row < COUNT {
        let mut column = 0;
        while column < 3 {
            numbers[row][column] = match table::ROWS[row].1[columns[column].column()] {
                NONE => ABSENT,
                private if private >= ARM_PRIVATE => PRIVATE + (private - ARM_PRIVATE) as u16,
                number => number as u16,
            };
            column += 1;
        }
        row += 1;
    }
    numbers
}

const fn row_of(name: &str) -> u16 {
    let mut row = 0;
    while !equal(table::ROWS[row].0.as_bytes(), name.as_bytes()) {
        row += 1;
    }
    row as u16
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

fn at(row: usize) -> &'static [u8] {
    &NAMES[usize::from(STARTS[row])..usize::from(STARTS[row + 1])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (name, arch, want) in [
            ("read", Arch::X86_64, Some(0)),
            ("read", Arch::X86, Some(3)),
            ("read", Arch::X32, Some(X32_BIT)),
            ("rt_sigaction", Arch::X32, Some(X32_BIT + 512)),
            ("socketcall", Arch::X86, Some(102)),
            ("socketcall", Arch::X86_64, None),
            ("clone3", Arch::X86, Some(435)),
        ] {
            assert_eq!(X86.number(Call::named(name).unwrap(), arch), want, "{name} {arch:?}");
        }
        for (name, arch, want) in [
            ("openat", Arch::Aarch64, Some(56)),
            ("open", Arch::Aarch64, None),
            ("open", Arch::Arm, Some(5)),
            ("cacheflush", Arch::Arm, Some(0xF0002)),
        ] {
            assert_eq!(ARM.number(Call::named(name).unwrap(), arch), want, "{name} {arch:?}");
        }
        assert_eq!(Call::named("no_such_call"), None);
        assert_eq!(Call::named(""), None);
    }

    #[test]
    fn the_machine_that_tests_run_on_agrees() {
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("seccomp", libc::SYS_seccomp),
        ] {
            let family = Family::native();
            assert_eq!(family.number(Call::named(name).unwrap(), family.own()), Some(number as u32), "{name}");
        }
    }

    #[test]
    fn every_name_is_found() {
        for (row, (name, numbers)) in table::ROWS.iter().enumerate() {
            let call = Call::named(name).unwrap();
            assert_eq!((usize::from(call.0), call.name()), (row, *name));
            for (family, arch) in [(&X86, Arch::X86_64), (&X86, Arch::X86), (&ARM, Arch::Aarch64), (&ARM, Arch::Arm)] {
                let want = numbers[arch.column()];
                assert_eq!(family.number(call, arch), (want != NONE).then_some(want), "{name} {arch:?}");
            }
        }
    }

    #[test]
    fn architectures_are_named_once() {
        let unique: std::collections::BTreeSet<_> = ARCHITECTURES.iter().collect();
        assert_eq!(unique.len(), ARCHITECTURES.len());
        for arch in X86.members.iter().chain(ARM.members) {
            assert!(unique.contains(&arch.name()), "{arch:?}");
        }
    }
}
