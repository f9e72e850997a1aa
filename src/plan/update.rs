//! `update`: the resources that are asked for, laid over those that a container was made with. Works on the JSON itself,
//! so that what is stored stays what the user wrote; what the values mean is decided where it is decided at `create`.

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};

use super::intel_rdt::check_update;
use super::spec::document;
use super::spec::resources::Resources;

/// Members of `linux.resources` that were given; everything else stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update(Map<String, Value>, Schemas);

/// Members of `linux.intelRdt` that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schemas {
    pub l3_cache: Option<String>,
    pub mem_bw: Option<String>,
}

/// Where 0 or an empty string says "not set", as at `create`: Go's encoder writes it for every field that nobody set.
const ZERO_IS_ABSENT: [(&str, &[&str]); 4] = [
    ("memory", &["limit", "reservation", "swap", "kernel", "kernelTCP"]),
    ("cpu", &["shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"]),
    ("blockIO", &["weight", "leafWeight"]),
    ("network", &["classID"]),
];

/// What tells the members of a list from each other.
const KEYS: [&str; 4] = ["pageSize", "major", "minor", "name"];

impl Update {
    /// A text as `linux.resources` is written.
    pub fn read(text: &[u8]) -> Result<Self> {
        if text.trim_ascii().is_empty() {
            return Err(anyhow!("is empty; give an object such as {{\"cpu\": {{\"shares\": 512}}}}"));
        }
        document::read::<Resources>(text)?;
        Ok(Self(document::read(text)?, Schemas::default()).without_absent())
    }

    pub fn set(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        let given = std::mem::take(self);
        let mut members = Value::Object(given.0);
        members[section][key] = value.into();
        if let Value::Object(members) = members {
            *self = Self(members, given.1).without_absent();
        }
    }

    pub fn set_schemas(&mut self, schemas: Schemas) -> Result<()> {
        check_update(schemas.l3_cache.as_deref(), schemas.mem_bw.as_deref())?;
        self.1 = schemas;
        Ok(())
    }

    pub fn schemas(&self) -> Option<&Schemas> {
        Some(&self.1).filter(|schemas| **schemas != Schemas::default())
    }

    /// Device rules are the container's for good.
    fn without_absent(mut self) -> Self {
        self.0.remove("devices");
        for (section, keys) in ZERO_IS_ABSENT {
            if let Some(Value::Object(section)) = self.0.get_mut(section) {
                section
                    .retain(|key, value| !keys.contains(&key.as_str()) || !matches!(value, v if *v == 0 || *v == ""));
            }
        }
        for section in self.0.values_mut().filter_map(Value::as_object_mut) {
            section.retain(|_, value| !value.is_null());
        }
        self.0.retain(|_, section| !section.is_null() && section.as_object().is_none_or(|keys| !keys.is_empty()));
        self
    }

    /// Whether this field was given, or something in it: `linux.resources.cpu.quota`.
    pub fn names(&self, field: &str) -> bool {
        let Some(path) = field.strip_prefix("linux.resources.") else { return false };
        let is = |path: &str, name: &str| {
            path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.0.iter().any(|(section, value)| match value {
            Value::Object(keys) => {
                path.strip_prefix(section.as_str()).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| {
                    // of an adapter or a file the name may hold dots itself
                    keys.keys().any(|key| is(rest, key))
                })
            }
            _ => is(path, section),
        })
    }

    /// Into a config.json.
    pub fn lay_over(&self, config: &mut Value) {
        let resources = &mut config["linux"]["resources"];
        let given = |section: &str, key: &str| self.0.get(section).and_then(|section| section.get(key));
        // a limit of swap counts memory too: it means nothing without one of memory
        if given("memory", "limit") == Some(&json!(-1)) && given("memory", "swap").is_none() {
            remove(resources, "memory", "swap");
        }
        // the kernel forgets the shares of a cgroup that becomes idle, or no longer is
        if given("cpu", "idle").is_some() && given("cpu", "shares").is_none() {
            remove(resources, "cpu", "shares");
        }
        let schemas = [("l3CacheSchema", &self.1.l3_cache), ("memBwSchema", &self.1.mem_bw)];
        for (section, value) in &self.0 {
            overlay(&mut resources[section.as_str()], value);
        }
        for (key, schema) in schemas {
            if let Some(schema) = schema {
                config["linux"]["intelRdt"][key] = schema.as_str().into();
            }
        }
    }
}

fn remove(resources: &mut Value, section: &str, key: &str) {
    if let Some(Value::Object(section)) = resources.get_mut(section) {
        section.remove(key);
    }
}

fn overlay(base: &mut Value, update: &Value) {
    match (base, update) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(update)) => {
            for (key, value) in update {
                overlay(base.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(update)) => {
            for member in update {
                // each of them: the last one that is written holds
                let mut is_new = true;
                for own in base.iter_mut().filter(|own| is_same(own, member)) {
                    overlay(own, member);
                    is_new = false;
                }
                if is_new {
                    base.push(member.clone());
                }
            }
        }
        (base, update) => *base = update.clone(),
    }
}

fn is_same(a: &Value, b: &Value) -> bool {
    KEYS.iter().all(|key| a.get(key) == b.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Update {
        Update::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:#}"))
    }

    fn laid(update: Value, over: Value) -> Value {
        let mut config = json!({"process": {"args": ["a"]}, "linux": {"cgroupsPath": "/x", "resources": over}});
        read(&update.to_string()).lay_over(&mut config);
        assert_eq!((&config["process"]["args"][0], &config["linux"]["cgroupsPath"]), (&json!("a"), &json!("/x")));
        config["linux"]["resources"].clone()
    }

    #[test]
    fn what_is_given_replaces_and_the_rest_stays() {
        let disk = |minor: u32, rate: u32| json!({"major": 8, "minor": minor, "rate": rate});
        for (update, over, want) in [
            (json!({}), json!({"cpu": {"shares": 5}}), json!({"cpu": {"shares": 5}})),
            (
                json!({"memory": null, "cpu": {"shares": null}}),
                json!({"cpu": {"shares": 5}}),
                json!({"cpu": {"shares": 5}}),
            ),
            (json!({"cpu": {"quota": 7}}), json!(null), json!({"cpu": {"quota": 7}})),
            (
                json!({"cpu": {"quota": 7}}),
                json!({"cpu": {"quota": 5, "period": 6, "cpus": "0"}, "pids": {"limit": 1}}),
                json!({"cpu": {"quota": 7, "period": 6, "cpus": "0"}, "pids": {"limit": 1}}),
            ),
            (
                json!({"pids": {"limit": 0}, "cpu": {"idle": 0}}),
                json!({"pids": {"limit": 9}}),
                json!({"pids": {"limit": 0}, "cpu": {"idle": 0}}),
            ),
            // Go's zeros
            (
                json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"cpus": "", "period": 0}, "blockIO": {"weight": 0}}),
                json!({"memory": {"limit": 5}, "cpu": {"cpus": "1"}, "blockIO": {"weight": 10}}),
                json!({"memory": {"limit": 5}, "cpu": {"cpus": "1"}, "blockIO": {"weight": 10}}),
            ),
            // lists by what tells their members apart
            (
                json!({"blockIO": {"throttleReadBpsDevice": [disk(1, 7), disk(2, 8)]}}),
                json!({"blockIO": {"throttleReadBpsDevice": [disk(0, 5), disk(1, 6)]}}),
                json!({"blockIO": {"throttleReadBpsDevice": [disk(0, 5), disk(1, 7), disk(2, 8)]}}),
            ),
            (
                json!({"blockIO": {"throttleReadBpsDevice": [disk(1, 7)]}}),
                json!({"blockIO": {"throttleReadBpsDevice": [disk(1, 5), disk(1, 6)]}}),
                json!({"blockIO": {"throttleReadBpsDevice": [disk(1, 7), disk(1, 7)]}}),
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
                json!({"hugepageLimits": [{"pageSize": "1GB", "limit": 2}, {"pageSize": "2MB", "limit": 3}]}),
                json!({"hugepageLimits": [{"pageSize": "1GB", "limit": 2}, {"pageSize": "2MB", "limit": 1}]}),
            ),
            (
                json!({"unified": {"a.b": "1"}}),
                json!({"unified": {"c.d": "2"}}),
                json!({"unified": {"a.b": "1", "c.d": "2"}}),
            ),
            // no limit of memory leaves none with swap; idle forgets the shares
            (
                json!({"memory": {"limit": -1}}),
                json!({"memory": {"limit": 5, "swap": 9}}),
                json!({"memory": {"limit": -1}}),
            ),
            (
                json!({"memory": {"limit": -1, "swap": -1}}),
                json!({"memory": {"limit": 5, "swap": 9}}),
                json!({"memory": {"limit": -1, "swap": -1}}),
            ),
            (json!({"cpu": {"idle": 1}}), json!({"cpu": {"shares": 5}}), json!({"cpu": {"idle": 1}})),
            (
                json!({"cpu": {"idle": 1, "shares": 6}}),
                json!({"cpu": {"shares": 5}}),
                json!({"cpu": {"idle": 1, "shares": 6}}),
            ),
            // for good
            (
                json!({"devices": [{"allow": true, "access": "rwm"}]}),
                json!({"devices": [{"allow": false, "access": "rwm"}]}),
                json!({"devices": [{"allow": false, "access": "rwm"}]}),
            ),
        ] {
            assert_eq!(laid(update.clone(), over.clone()), want, "{update} over {over}");
        }
    }

    #[test]
    fn which_fields_are_named() {
        let update = read(
            r#"{"cpu": {"quota": 5, "shares": 0}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "memory": null,
                "blockIO": {"throttleReadBpsDevice": []}, "rdma": {"m.1": {"hcaHandles": 1}}, "unified": {"a.b": "1"}}"#,
        );
        for (field, want) in [
            ("linux.resources.cpu.quota", true),
            ("linux.resources.cpu.period", false),
            ("linux.resources.cpu.shares", false),
            ("linux.resources.hugepageLimits[3]", true),
            ("linux.resources.blockIO.throttleReadBpsDevice[0]", true),
            ("linux.resources.blockIO.throttleReadBps", false),
            ("linux.resources.rdma.m.1", true),
            ("linux.resources.unified.a.b", true),
            ("linux.resources.unified.a", false),
            ("linux.resources.memory.limit", false),
            ("linux.resources.devices", false),
            ("linux.resources.cpux.quota", false),
        ] {
            assert_eq!(update.names(field), want, "{field}");
        }
    }

    #[test]
    fn set_one_by_one() {
        let mut update = Update::default();
        update.set("cpu", "quota", 5);
        update.set("cpu", "cpus", "0-1");
        update.set("memory", "limit", 0);
        assert_eq!(update, read(r#"{"cpu": {"quota": 5, "cpus": "0-1"}, "memory": {}}"#));
    }

    #[test]
    fn texts_that_say_nothing() {
        for (text, says) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("{", "line 1, column 1: EOF"),
            ("[]", "expected an object, got a list"),
            ("null", "expected an object, got null"),
            ("{\"cpu\": 5}", "cpu: expected an object"),
            ("{\"memory\": {\"limit\": \"1G\"}}", "memory.limit: expected a whole number, got string 1G"),
            ("{\"cpu\": {}} x", "trailing characters"),
            ("{\"blockIO\": {\"weight\": 70000}}", "blockIO.weight: expected a whole number from 0 to 65535"),
        ] {
            let error = format!("{:#}", Update::read(text.as_bytes()).unwrap_err());
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
