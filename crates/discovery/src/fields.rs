//! Reading JSON objects as leniently as Go does: names in any case, `null` for what is not set, unknown names kept.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What is stored is not read when it is larger: nobody needs as much, and remote data is not trusted.
pub(crate) const MAX_JSON: usize = 64 << 10;
/// So many entries a map of ports, or the unknown fields, may have.
const MAX_ENTRIES: usize = 64;

/// A parsed object whose fields are taken out one by one.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Errors say what is wrong and show nothing of the text.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_JSON {
            return Err(format!("{} bytes, at most {MAX_JSON}", text.len()));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err("not a JSON object".into()),
            Err(error) => Err(format!("not JSON at line {}, column {}", error.line(), error.column())),
        }
    }

    /// The field of that name: as it is written first, in any case else; `None` when it is not there, or null.
    fn take(&mut self, name: &str) -> Option<Value> {
        let exact = self.0.remove(name);
        let others: Vec<String> =
            self.0.keys().filter(|key| key.eq_ignore_ascii_case(name)).cloned().collect();
        let mut folded = None;
        for key in others {
            folded = self.0.remove(&key).or(folded);
        }
        exact.or(folded).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, String> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{name} is no text")),
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(format!("{name} is neither true nor false")),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<f64>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(_) => Err(format!("{name} is no number")),
        }
    }

    /// Text to text. Numbers are refused, as they are by Go's decoder.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<BTreeMap<String, String>, String> {
        let texts = match self.take(name) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(texts)) if texts.len() <= MAX_ENTRIES => texts,
            Some(Value::Object(_)) => return Err(format!("{name} has more than {MAX_ENTRIES} entries")),
            Some(_) => return Err(format!("{name} is no object")),
        };
        let text = |(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Null => Ok((key, String::new())),
            _ => Err(format!("{name} has a value that is no text")),
        };
        texts.into_iter().map(text).collect()
    }

    /// What nobody has asked for.
    pub(crate) fn rest(self) -> Result<BTreeMap<String, Value>, String> {
        if self.0.len() > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} unknown fields"));
        }
        Ok(self.0.into_iter().collect())
    }
}

/// No control characters, which could break a log line, a header or a URL.
pub(crate) fn check_text(name: &'static str, text: &str) -> Result<(), (&'static str, String)> {
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err((name, format!("has the control character {letter:?}"))),
        None => Ok(()),
    }
}

/// Names of hosts: what can stand in a URL between `//` and `:`.
pub(crate) fn check_hostname(name: &'static str, text: &str) -> Result<(), (&'static str, String)> {
    check_text(name, text)?;
    if text.len() > 255 {
        return Err((name, format!("{} bytes, at most 255", text.len())));
    }
    match text.chars().find(|letter| letter.is_whitespace() || "/?#@\\".contains(*letter)) {
        Some(letter) => Err((name, format!("has a {letter:?}"))),
        None => Ok(()),
    }
}

pub(crate) fn check_ports(
    name: &'static str,
    ports: &BTreeMap<String, String>,
) -> Result<(), (&'static str, String)> {
    if ports.len() > MAX_ENTRIES {
        return Err((name, format!("more than {MAX_ENTRIES} entries")));
    }
    for (scheme, port) in ports {
        check_text(name, scheme)?;
        if scheme.is_empty() || scheme.len() > 64 {
            return Err((name, "a scheme has 1 to 64 bytes".into()));
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('+') {
            return Err((name, format!("{scheme:?} is no port from 1 to 65535")));
        }
    }
    Ok(())
}
