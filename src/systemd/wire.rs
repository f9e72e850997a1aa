//! D-Bus messages as bytes (D-Bus specification, "Message Protocol"): what rrun says, and as much of what it hears as it
//! needs. Pure. What comes in may be anything: every length is checked, nothing is believed.

use std::fmt;

use anyhow::{Result, bail, ensure};

/// A value of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Bytes(Vec<u8>),
    /// All of one type, whose signature it is.
    List(&'static str, Vec<Value>),
    /// A struct of a text and another value.
    Pair(String, Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List("s", texts.into_iter().map(Self::text).collect())
    }

    pub fn signature(&self) -> String {
        match self {
            Self::Text(_) => "s".into(),
            Self::Bool(_) => "b".into(),
            Self::Byte(_) => "y".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Bytes(_) => "ay".into(),
            Self::List(of, _) => format!("a{of}"),
            Self::Pair(_, value) => format!("(s{})", value.signature()),
        }
    }
}

/// For people.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bool(yes) => yes.fmt(f),
            Self::Byte(number) => number.fmt(f),
            Self::I16(number) => number.fmt(f),
            Self::U16(number) => number.fmt(f),
            Self::I32(number) => number.fmt(f),
            Self::U32(number) => number.fmt(f),
            Self::I64(number) => number.fmt(f),
            Self::U64(u64::MAX) => f.write_str("infinity"),
            Self::U64(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
            Self::Bytes(bytes) => write!(f, "{bytes:02x?}"),
            Self::List(_, values) => {
                let values: Vec<_> = values.iter().map(Self::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Self::Pair(text, value) => write!(f, "{text} {value}"),
        }
    }
}

/// Bytes of a message in the making, little-endian; offsets count from its start.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    pub fn u32(&mut self, number: u32) {
        self.number(number.to_le_bytes());
    }

    /// Also an object's path.
    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array; its length does not count the padding before its first element.
    pub fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(yes) => self.u32((*yes).into()),
            Value::Byte(byte) => self.0.push(*byte),
            Value::I16(number) => self.number(number.to_le_bytes()),
            Value::U16(number) => self.number(number.to_le_bytes()),
            Value::I32(number) => self.number(number.to_le_bytes()),
            Value::U32(number) => self.u32(*number),
            Value::I64(number) => self.number(number.to_le_bytes()),
            Value::U64(number) => self.number(number.to_le_bytes()),
            Value::Double(number) => self.number(number.to_le_bytes()),
            Value::Bytes(bytes) => self.array(1, |to| to.0.extend(bytes)),
            Value::List(of, values) => {
                self.array(alignment(of.as_bytes()[0]), |to| values.iter().for_each(|value| to.value(value)))
            }
            Value::Pair(text, value) => {
                self.align(8);
                self.text(text);
                self.value(value);
            }
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |to| {
            for (name, value) in properties {
                to.align(8);
                to.text(name);
                to.variant(value);
            }
        });
    }
}

fn alignment(kind: u8) -> usize {
    match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const VERSION: u8 = 1;

/// Header fields by their number.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call of a method.
pub struct Call<'a> {
    /// `None` where there is no bus between.
    pub destination: Option<&'a str>,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    /// Of `body`.
    pub signature: &'a str,
}

impl Call<'_> {
    pub fn message(&self, serial: u32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut content = Writer::default();
        body(&mut content);
        let mut message = Writer(vec![b'l', METHOD_CALL, 0, VERSION]);
        message.u32(content.0.len() as u32);
        message.u32(serial);
        message.array(8, |to| {
            let mut field = |number: u8, kind: &str, text: &str| {
                to.align(8);
                to.0.push(number);
                to.signature(kind);
                if kind == "g" { to.signature(text) } else { to.text(text) }
            };
            field(PATH, "o", self.path);
            field(INTERFACE, "s", self.interface);
            field(MEMBER, "s", self.member);
            if let Some(destination) = self.destination {
                field(DESTINATION, "s", destination);
            }
            if !self.signature.is_empty() {
                field(SIGNATURE, "g", self.signature);
            }
        });
        message.align(8);
        message.0.extend(content.0);
        message.0
    }
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first text of the answer: every answer that rrun looks into begins with one.
    Answer {
        to: u32,
        text: Option<String>,
    },
    Refusal {
        to: u32,
        name: String,
        text: String,
    },
    JobRemoved {
        job: String,
        result: String,
    },
    /// Not for us.
    Other,
}

/// Before its header fields.
const PRELUDE: usize = 16;
/// What systemd and the bus say to us is short.
const LONGEST: usize = 1 << 20;

/// The length of the message that begins here, once that can be told.
pub fn length(bytes: &[u8]) -> Result<Option<usize>> {
    if bytes.len() < PRELUDE {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes)?;
    ensure!(bytes[3] == VERSION, "speaks version {} of D-Bus, which rrun does not know", bytes[3]);
    reader.at = 4;
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    ensure!(body <= LONGEST && fields <= LONGEST, "says more at once than rrun expects");
    Ok(Some((PRELUDE + fields).next_multiple_of(8) + body))
}

/// One whole message.
pub fn parse(message: &[u8]) -> Result<Heard> {
    let mut reader = Reader::new(message)?;
    let fields = fields(&mut reader)?;
    let mut body = Reader { bytes: message.get(reader.at..).unwrap_or_default(), at: 0, big: reader.big };
    let signature = fields.signature.as_deref().unwrap_or_default();
    match (message[1], fields.reply_serial) {
        (METHOD_RETURN, Some(to)) => Ok(Heard::Answer { to, text: body.first_text(signature)? }),
        (ERROR, Some(to)) => {
            let text = body.first_text(signature)?.unwrap_or_default();
            Ok(Heard::Refusal { to, name: fields.error_name.unwrap_or_default(), text })
        }
        (SIGNAL, _) if fields.member.as_deref() == Some("JobRemoved") && signature == "uoss" => {
            body.u32()?;
            let job = body.text()?;
            body.text()?;
            Ok(Heard::JobRemoved { job, result: body.text()? })
        }
        _ => Ok(Heard::Other),
    }
}

#[derive(Default)]
struct Fields {
    member: Option<String>,
    error_name: Option<String>,
    reply_serial: Option<u32>,
    signature: Option<String>,
}

/// Leaves the reader where the body begins.
fn fields(reader: &mut Reader) -> Result<Fields> {
    reader.at = 12;
    let length = reader.u32()? as usize;
    let end = reader.at + length;
    ensure!(end <= reader.bytes.len(), CUT);
    let mut fields = Fields::default();
    while reader.at < end {
        reader.align(8);
        let number = reader.byte()?;
        let kind = reader.signature()?;
        match (number, kind.as_str()) {
            (MEMBER, "s") => fields.member = Some(reader.text()?),
            (ERROR_NAME, "s") => fields.error_name = Some(reader.text()?),
            (REPLY_SERIAL, "u") => fields.reply_serial = Some(reader.u32()?),
            (SIGNATURE, "g") => fields.signature = Some(reader.signature()?),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u" | "i" | "h" | "b") => drop(reader.u32()?),
            // the specification has no other kinds of fields
            _ => bail!("sends a header that D-Bus does not have"),
        }
    }
    reader.at = end;
    reader.align(8);
    Ok(fields)
}

const CUT: &str = "sends a message that ends too early";

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let big = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => bail!("does not speak D-Bus"),
        };
        Ok(Self { bytes, at: 0, big })
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { bail!(CUT) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into()?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        ensure!(self.byte()? == 0, "sends a text without its end");
        Ok(text)
    }

    /// If the body begins with one, in a variant too.
    fn first_text(&mut self, signature: &str) -> Result<Option<String>> {
        match signature.as_bytes().first() {
            Some(b's' | b'o') => Ok(Some(self.text()?)),
            Some(b'v') => match self.signature()?.as_str() {
                "s" | "o" => Ok(Some(self.text()?)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
