//! What rrun asks of systemd, where that owns the cgroups: units for containers. Over D-Bus, by a client of its own: one
//! thread, no promise without a deadline. What a unit is to be, is not decided here.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use self::wire::{Call, Writer};
use crate::hooks::Stop;

pub use address::Address;
pub use bus::{Absent, Refused};
pub use wire::Value;

mod address;
pub mod annotation;
mod bus;
pub mod wire;

/// A property of a unit, by systemd's name: org.freedesktop.systemd1(5).
pub type Property = (String, Value);

/// Whose systemd is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    System,
    User,
    /// Where a unit was asked for before.
    At(Address),
}

/// A unit was asked for, and there was no answer.
#[derive(Debug)]
pub struct Unsure(String);

impl fmt::Display for Unsure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {} may still appear: remove it by `rrun delete --force`", self.0)
    }
}

/// For all that is asked at once. The caller of `create` is promised an answer within 30 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// Another number of seconds.
const VARIABLE: &str = "RRUN_SYSTEMD_TIMEOUT";

/// A systemd that answers.
pub struct Manager<'s> {
    bus: bus::Bus<'s>,
    /// 252
    pub version: u32,
    /// Below which all of its units are: empty, or that of a user's own manager.
    pub control_group: String,
}

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// How often a leftover of the same name is removed before it counts as somebody's.
const ATTEMPTS: usize = 3;

impl<'s> Manager<'s> {
    /// What is asked first has the same deadline.
    pub fn connect(whose: &Whose, stop: Option<&'s dyn Stop>) -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name);
        let addresses = match whose {
            Whose::System => Address::of_system(variable("DBUS_SYSTEM_BUS_ADDRESS").as_deref()),
            Whose::User => Address::of_user(
                variable("DBUS_SESSION_BUS_ADDRESS").as_deref(),
                variable("XDG_RUNTIME_DIR").as_deref(),
            ),
            Whose::At(address) => vec![address.clone()],
        };
        let patience = patience(variable(VARIABLE).and_then(|word| word.into_string().ok()))?;
        let bus = bus::Bus::connect(&addresses, patience, stop)?;
        let mut manager = Self { bus, version: 0, control_group: String::new() };
        let [version, group] = ["Version", "ControlGroup"].map(|name| {
            manager.say(PROPERTIES, "Get", "ss", |body| {
                body.text(MANAGER);
                body.text(name);
            })
        });
        let text = manager.bus.answer(version)?.unwrap_or_default();
        manager.version = version_in(&text).with_context(|| format!("systemd calls its version {text}"))?;
        manager.control_group = manager.bus.answer(group)?.unwrap_or_default();
        Ok(manager)
    }

    pub fn address(&self) -> &Address {
        &self.bus.address
    }

    /// An error where the unit stands, and `is_ours` does not know its description.
    pub fn refuse_foreign(&mut self, unit: &str, is_ours: impl Fn(&str) -> bool) -> Result<()> {
        let object = object_of(unit);
        let [state, description] = ["ActiveState", "Description"].map(|name| {
            self.say_to(&object, PROPERTIES, "Get", "ss", |body| {
                body.text(UNIT);
                body.text(name);
            })
        });
        let (state, description) = (self.bus.answer(state), self.bus.answer(description));
        let (state, description) = match (state, description) {
            // there is no such unit
            (Err(error), _) | (_, Err(error)) if error.is::<Refused>() => return Ok(()),
            (state, description) => (state?.unwrap_or_default(), description?.unwrap_or_default()),
        };
        if !matches!(state.as_str(), "inactive" | "failed") && !is_ours(&description) {
            bail!("unit {unit} is {state} and another's ({description}); choose another linux.cgroupsPath");
        }
        Ok(())
    }

    /// Makes the unit. One of that name is what a crash has left, if `is_leftover` does not object.
    pub fn start(
        &mut self,
        unit: &str,
        properties: &[Property],
        is_leftover: impl Fn(&mut Self) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let asked = self.say(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", |body| {
                body.text(unit);
                body.text("replace");
                body.properties(properties);
                body.array(8, |_| ());
            });
            match self.bus.answer(asked).and_then(|job| self.done(unit, "start", job)) {
                Ok(()) => return Ok(()),
                Err(error) if is(&error, UNIT_EXISTS) => {
                    is_leftover(self)?;
                    self.discard(unit)?;
                }
                Err(error) if error.is::<Refused>() => {
                    let error = error.context(format!("start of {unit}"));
                    // of a job that failed the unit may be there
                    return Err(match self.discard(unit) {
                        Err(silence) if !silence.is::<Refused>() => error.context(Unsure(unit.to_string())),
                        _ => error,
                    });
                }
                Err(error) => return Err(error.context(Unsure(unit.to_string()))),
            }
        }
        bail!("unit {unit}: is there already, and comes again; choose another linux.cgroupsPath")
    }

    /// What it will set again after a reload, too; not after a boot.
    pub fn set(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        self.bus.renew();
        let asked = self.say(MANAGER, "SetUnitProperties", "sba(sv)", |body| {
            body.text(unit);
            body.u32(1);
            body.properties(properties);
        });
        self.bus.answer(asked).map(drop).map_err(|error| match error.is::<Refused>() {
            true => error.context(format!("properties of {unit}")),
            // it has the request, and may get to it when nobody waits any more
            false => error.context(format!(
                "properties of {unit} may still be set: see systemctl show {unit}, and update again when systemd answers"
            )),
        })
    }

    /// Puts a process into it, as root may and, since version 238, on behalf of its user.
    /// With a `subgroup`, into that cgroup of its.
    pub fn attach(&mut self, unit: &str, subgroup: Option<&str>, pid: Pid) -> Result<()> {
        self.bus.renew();
        let asked = self.say(MANAGER, "AttachProcessesToUnit", "ssau", |body| {
            body.text(unit);
            body.text(&subgroup.map_or(String::new(), |name| format!("/{name}")));
            body.array(4, |body| body.u32(pid.as_raw() as u32));
        });
        self.bus.answer(asked).map(drop).with_context(|| format!("process {pid} into {unit}"))
    }

    /// Ends whoever is in it, and forgets it. One that is gone is no error.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        self.bus.renew();
        self.discard(unit)
    }

    fn discard(&mut self, unit: &str) -> Result<()> {
        let asked = self.say(MANAGER, "StopUnit", "ss", |body| {
            body.text(unit);
            body.text("replace");
        });
        match self.bus.answer(asked) {
            Ok(job) => self.done(unit, "stop", job).with_context(|| format!("stop of {unit}"))?,
            Err(error) if is(&error, NO_SUCH_UNIT) => return Ok(()),
            Err(error) => return Err(error.context(format!("stop of {unit}"))),
        }
        let asked = self.say(MANAGER, "ResetFailedUnit", "s", |body| body.text(unit));
        match self.bus.answer(asked) {
            Err(error) if !error.is::<Refused>() => Err(error),
            // gone, or never failed
            _ => Ok(()),
        }
    }

    fn done(&mut self, unit: &str, what: &str, job: Option<String>) -> Result<()> {
        let job = job.with_context(|| format!("{what} of {unit}: systemd names no job"))?;
        match self.bus.end_of(&job)?.as_str() {
            "done" => Ok(()),
            result => {
                let text = format!("{result}; see journalctl -u {unit}");
                Err(Refused { name: "its job ended".into(), text }.into())
            }
        }
    }

    fn say(&mut self, interface: &str, member: &str, signature: &str, body: impl FnOnce(&mut Writer)) -> u32 {
        self.say_to(OBJECT, interface, member, signature, body)
    }

    fn say_to(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        signature: &str,
        body: impl FnOnce(&mut Writer),
    ) -> u32 {
        let destination = (!self.bus.address.is_direct()).then_some(NAME);
        self.bus.say(&Call { destination, path, interface, member, signature }, body)
    }
}

/// Where systemd shows a unit, there or not: what has no place in the path of an object is written in hex, as is a digit
/// that comes first.
fn object_of(unit: &str) -> String {
    let plain = |(place, byte): (usize, &u8)| byte.is_ascii_alphabetic() || (place > 0 && byte.is_ascii_digit());
    let escaped = unit.as_bytes().iter().enumerate().map(|one| match plain(one) {
        true => char::from(*one.1).to_string(),
        false => format!("_{:02x}", one.1),
    });
    format!("{OBJECT}/unit/{}", escaped.collect::<String>())
}

fn is(error: &anyhow::Error, name: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.name == name)
}

fn patience(word: Option<String>) -> Result<Duration> {
    match word.filter(|word| !word.is_empty()) {
        None => Ok(PATIENCE),
        Some(word) => match word.parse::<f32>().ok().filter(|seconds| (0.01..=600.0).contains(seconds)) {
            Some(seconds) => Ok(Duration::from_secs_f32(seconds)),
            None => bail!("{VARIABLE}: {word} is no number of seconds from 0.01 to 600"),
        },
    }
}

/// Distributions put more around it: `v252`, `252.39-1~deb12u1`.
fn version_in(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An answer with one text in a variant, as the bytes of the D-Bus specification.
    fn answer(to: u32, text: &str) -> Vec<u8> {
        let body = [&[1, b's', 0, 0], &(text.len() as u32).to_le_bytes()[..], text.as_bytes(), &[0]].concat();
        let numbers = [body.len() as u32, to, 15].map(u32::to_le_bytes).concat();
        let fields = [&[5, 1, b'u', 0], &to.to_le_bytes()[..], &[8, 1, b'g', 0, 1, b'v', 0, 0]].concat();
        [&[b'l', 2, 1, 1][..], &numbers, &fields, &body].concat()
    }

    #[test]
    fn what_systemd_may_still_do_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("systemd/private");
        std::fs::create_dir(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[b"OK 1\r\n", &answer(1, "252")[..], &answer(2, "")].concat()).unwrap();
            // gone as soon as it has heard of more
            let (mut heard, mut bytes) = (Vec::<u8>::new(), [0; 512]);
            while !heard.windows(17).any(|words| words == b"SetUnitProperties") {
                let length = stream.read(&mut bytes).unwrap();
                heard.extend(&bytes[..length]);
            }
        });
        let mut manager = Manager::connect(&Whose::At(Address::Path(socket)), None).unwrap();
        assert_eq!((manager.version, manager.control_group.as_str()), (252, ""));
        let error = manager.set("x.scope", &[]).unwrap_err();
        server.join().unwrap();
        assert!(format!("{error:#}").starts_with("properties of x.scope may still be set: "), "{error:#}");
    }

    #[test]
    fn versions() {
        for (text, want) in [
            ("252.39-1~deb12u1", Some(252)),
            ("v257.3-1-arch", Some(257)),
            ("systemd 219", Some(219)),
            ("260~rc1", Some(260)),
            ("", None),
            ("unknown", None),
            ("99999999999", None),
        ] {
            assert_eq!(version_in(text), want, "{text}");
        }
    }

    #[test]
    fn objects_of_units() {
        for (unit, want) in [
            ("a.scope", "a_2escope"),
            ("rrun-c1.scope", "rrun_2dc1_2escope"),
            ("1.slice", "_31_2eslice"),
            ("a\\x2d_9.slice", "a_5cx2d_5f9_2eslice"),
        ] {
            assert_eq!(object_of(unit), format!("/org/freedesktop/systemd1/unit/{want}"), "{unit}");
        }
    }

    #[test]
    fn how_long_an_answer_may_take() {
        for (word, want) in [
            (None, Ok(PATIENCE)),
            (Some(""), Ok(PATIENCE)),
            (Some("2"), Ok(Duration::from_secs(2))),
            (Some("0.5"), Ok(Duration::from_millis(500))),
            (Some("0"), Err(())),
            (Some("-1"), Err(())),
            (Some("NaN"), Err(())),
            (Some("601"), Err(())),
            (Some("soon"), Err(())),
        ] {
            assert_eq!(patience(word.map(String::from)).map_err(drop), want, "{word:?}");
        }
    }
}
