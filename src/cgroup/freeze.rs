//! Freezing a container: the v1 freezer, or `cgroup.freeze` of the v2 tree where no freezer was recorded. It is held
//! open from the moment of deciding, so that a cgroup made anew under the same name is not meant.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::Version;
use super::directory::{Directory, read as read_in};
use super::recorded::{Recorded, read, write_error};
use super::walk::{Visitor, walk};
use crate::error::SysError;
use crate::procfs::Proc;

/// How long a v1 freezer may stay FREEZING before it is thawed and frozen again: one that waits for another process of
/// the same cgroup, which is frozen already, gets on by that alone.
const STUCK: Duration = Duration::from_millis(200);
/// For those that were thawed to get on.
const BREATH: Duration = Duration::from_millis(10);
/// How many of those that do not freeze are named.
const NAMED: usize = 5;

pub struct Freezer {
    directory: Directory,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Frozen,
    Freezing,
    Thawed,
}

impl Recorded {
    /// `None` where the cgroup is not there any more.
    pub fn freezer(&self) -> Result<Option<Freezer>> {
        let (controller, version) = match (self.of("freezer"), self.of("")) {
            (Some(_), _) => ("freezer", Version::V1),
            (None, Some(_)) => ("", Version::V2),
            (None, None) => bail!("the container has neither a freezer cgroup nor one in a cgroup v2 tree; mount one"),
        };
        Ok(self.open(controller)?.map(|directory| Freezer { directory, version }))
    }

    /// For who freezes it himself. `None` where there is none.
    pub fn freezer_path(&self) -> Result<Option<PathBuf>> {
        for controller in ["freezer", ""] {
            if let Some(cgroup) = self.of(controller) {
                return Ok(self.open(controller)?.map(|_| cgroup.path.clone()));
            }
        }
        Ok(None)
    }

    /// After [`Recorded::thaw`]: waits until its processes run, unless somebody has frozen it anew.
    pub fn await_thawed(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        if let Some(freezer) = self.open("freezer")?
            && read(&freezer, "freezer.parent_freezing")?.is_some_and(|above| above.trim() == "1")
        {
            bail!("{ABOVE}");
        }
        let Some(tree) = self.open("")? else { return Ok(()) };
        let still = || -> Result<bool> {
            let events = read(&tree, "cgroup.events")?.unwrap_or_default();
            Ok(is_frozen(&events) && read(&tree, "cgroup.freeze")?.is_some_and(|own| own.trim() == "0"))
        };
        while still()? {
            if Instant::now() >= deadline {
                bail!("{ABOVE}");
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

const ABOVE: &str = "a cgroup above the container's is frozen too; thaw it";

impl Freezer {
    /// Returns when every process is frozen. What cannot be finished within `patience` is undone. False: the cgroup is
    /// not there any more.
    pub fn freeze(&self, patience: Duration) -> Result<bool> {
        let outcome = self.freeze_until(Instant::now() + patience);
        match outcome {
            Ok(Some(Progress::Frozen)) => return Ok(true),
            Ok(None) => return Ok(false),
            _ => {}
        }
        let suspects = self.suspects();
        self.thaw()?;
        match outcome? {
            Some(Progress::Thawed) => bail!("somebody thawed it meanwhile"),
            _ => {
                bail!(
                    "not all of it freezes within {} s: {}; it was thawed again",
                    patience.as_secs(),
                    self.who(suspects?)?
                )
            }
        }
    }

    pub fn thaw(&self) -> Result<()> {
        self.set(false).map(drop)
    }

    /// The last that was seen.
    fn freeze_until(&self, deadline: Instant) -> Result<Option<Progress>> {
        if !self.set(true)? {
            return Ok(None);
        }
        let mut again = Instant::now() + STUCK;
        let mut pause = Duration::from_micros(100);
        loop {
            let progress = self.progress()?;
            if progress != Some(Progress::Freezing) || Instant::now() >= deadline {
                return Ok(progress);
            }
            if self.version == Version::V1 && Instant::now() >= again {
                self.thaw()?;
                sleep(BREATH);
                self.set(true)?;
                again = Instant::now() + STUCK;
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// False where the cgroup is gone.
    fn set(&self, frozen: bool) -> Result<bool> {
        let (file, value) = match (self.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        match self.directory.write(file, value) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(write_error(&self.directory, file, value, errno)),
        }
    }

    /// `None` where the cgroup is gone.
    fn progress(&self) -> Result<Option<Progress>> {
        if self.version == Version::V1 {
            return Ok(read(&self.directory, "freezer.state")?.as_deref().map(progress_v1));
        }
        let (events, own) = (read(&self.directory, "cgroup.events")?, read(&self.directory, "cgroup.freeze")?);
        Ok(events.zip(own).map(|(events, own)| progress_v2(&events, &own)))
    }

    /// The threads that may be the ones that do not freeze.
    fn suspects(&self) -> Result<Vec<Suspect>> {
        let file = if self.version == Version::V1 { "tasks" } else { "cgroup.threads" };
        let mut threads = Threads { file, ids: Vec::new() };
        walk(&self.directory, &mut threads)
            .map_err(|errno| SysError::new("read cgroup", self.directory.path.display(), errno))?;
        let proc = Proc::own()?;
        Ok(threads.ids.into_iter().filter_map(|id| Suspect::new(proc, id)).collect())
    }

    /// After the thaw. On v1 a thread that was frozen is in another state now, one that the kernel holds is not. On v2
    /// only the second has ever been in that state, and the thaw has just woken it up as well, for nothing.
    fn who(&self, suspects: Vec<Suspect>) -> Result<String> {
        let proc = Proc::own()?;
        let held = |id| Suspect::new(proc, id).is_some_and(|now| now.state == HELD);
        let is_stuck = |one: &Suspect| self.version == Version::V2 || one.state != HELD || held(one.id);
        let stuck = suspects.into_iter().filter(is_stuck);
        Ok(listed(&stuck.map(|suspect| suspect.to_string()).collect::<Vec<_>>()))
    }
}

fn progress_v1(state: &str) -> Progress {
    match state.trim() {
        "FROZEN" => Progress::Frozen,
        "THAWED" => Progress::Thawed,
        _ => Progress::Freezing,
    }
}

fn progress_v2(events: &str, own: &str) -> Progress {
    match (is_frozen(events), own.trim()) {
        (_, "0") => Progress::Thawed,
        (true, _) => Progress::Frozen,
        (false, _) => Progress::Freezing,
    }
}

/// Of cgroup.events.
fn is_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

fn listed(names: &[String]) -> String {
    match names.len() {
        0 => "it is not told which".into(),
        count if count > NAMED => format!("{} and {} more", names[..NAMED].join(", "), count - NAMED),
        _ => names.join(", "),
    }
}

/// A thread that is perhaps not frozen.
struct Suspect {
    id: i32,
    name: String,
    state: char,
    /// The function of the kernel in which it waits; empty if the kernel does not tell.
    waits_in: String,
}

/// The state of whom the kernel holds, and since 6.1 of whom a freezer has stopped where it slept.
const HELD: char = 'D';
/// Where a v1 freezer holds whom it has not found asleep, and where v2's holds all; the compiler may have made the last
/// a part of the one before it.
const FROZEN: [&str; 3] = ["__refrigerator", "get_signal", "do_freezer_trap"];

impl Suspect {
    /// `None` if it is frozen for sure, or has ended.
    fn new(proc: &Proc, id: i32) -> Option<Self> {
        let read = |file: &str| Some(String::from_utf8_lossy(&proc.read(&format!("{id}/{file}")).ok()?).into_owned());
        let stat = proc.stat(Pid::from_raw(id)).ok()?;
        let waits_in = read("wchan").filter(|function| function != "0").unwrap_or_default();
        let name = read("comm")?.trim_end().to_string();
        (!FROZEN.contains(&waits_in.as_str()) && !stat.has_ended()).then_some(Self {
            id,
            name,
            state: stat.state,
            waits_in,
        })
    }
}

impl std::fmt::Display for Suspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) is in state {}", self.id, self.name, self.state)?;
        if self.waits_in.is_empty() { Ok(()) } else { write!(f, " in {}", self.waits_in) }
    }
}

struct Threads {
    file: &'static str,
    ids: Vec<i32>,
}

impl Visitor for Threads {
    fn enter(&mut self, cgroup: BorrowedFd) -> Result<(), Errno> {
        match read_in(&cgroup, self.file) {
            Ok(text) => self.ids.extend(text.split_ascii_whitespace().filter_map(|id| id.parse::<i32>().ok())),
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_the_kernel_says() {
        for (state, want) in [
            ("FROZEN\n", Progress::Frozen),
            ("FREEZING\n", Progress::Freezing),
            ("THAWED\n", Progress::Thawed),
            ("", Progress::Freezing),
        ] {
            assert_eq!(progress_v1(state), want, "{state:?}");
        }
        for (events, own, want) in [
            ("populated 1\nfrozen 1\n", "1\n", Progress::Frozen),
            ("populated 1\nfrozen 0\n", "1\n", Progress::Freezing),
            ("populated 1\nfrozen 0\n", "0\n", Progress::Thawed),
            // only a cgroup above is frozen
            ("populated 1\nfrozen 1\n", "0\n", Progress::Thawed),
            ("populated 1\n", "1\n", Progress::Freezing),
        ] {
            assert_eq!(progress_v2(events, own), want, "{events:?} {own:?}");
        }
    }

    #[test]
    fn some_of_many_are_named() {
        let names = |count: usize| (1..=count).map(|n| n.to_string()).collect::<Vec<_>>();
        for (count, want) in
            [(0, "it is not told which"), (1, "1"), (5, "1, 2, 3, 4, 5"), (7, "1, 2, 3, 4, 5 and 2 more")]
        {
            assert_eq!(listed(&names(count)), want);
        }
        let stuck = |waits_in: &str| Suspect { id: 7, name: "sh".into(), state: 'D', waits_in: waits_in.into() };
        assert_eq!(stuck("fuse_get_req").to_string(), "7 (sh) is in state D in fuse_get_req");
        assert_eq!(stuck("").to_string(), "7 (sh) is in state D");
    }

    #[test]
    fn what_has_no_freezer_says_so() {
        let recorded = |controller: &str| {
            Recorded::new(&[(controller.to_string(), "/tmp/rrun-never-made/c1".into())].into()).unwrap().freezer()
        };
        assert!(recorded("cpu").err().unwrap().to_string().contains("neither a freezer cgroup"));
        assert!(recorded("freezer").unwrap().is_none() && recorded("").unwrap().is_none());
    }
}
