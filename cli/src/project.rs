//! `platform.toml`: defaults of `platform run` for one folder. The keys are the long flags with
//! underscores; an unknown key is refused with the one that was meant, never ignored.

use crate::failure::{Failure, on_path};
use crate::{parse, priorities};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the file.
pub const FILE: &str = "platform.toml";

const KEYS: [&str; 21] = [
    "name",
    "gpus",
    "gpu_fraction",
    "gpu_memory",
    "gpu_model",
    "nodes",
    "cpus",
    "memory",
    "pool",
    "model",
    "priority",
    "preemptible",
    "spread",
    "time_limit",
    "retries",
    "start_within",
    "warn_before",
    "image",
    "requirements",
    "tags",
    "env",
];

/// What the file says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// `name`.
    pub name: Option<String>,
    /// `gpus`.
    pub gpus: Option<u32>,
    /// `gpu_fraction`, in thousandths.
    pub gpu_share_milli: Option<u32>,
    /// `gpu_memory`.
    pub gpu_memory_mib: Option<u64>,
    /// `gpu_model`.
    pub gpu_model: Option<String>,
    /// `nodes`.
    pub nodes: Option<u32>,
    /// `cpus`.
    pub cpu_milli: Option<u64>,
    /// `memory`.
    pub memory_mib: Option<u64>,
    /// `pool`.
    pub pool: Option<String>,
    /// `model`.
    pub model: Option<String>,
    /// `priority`.
    pub priority: Option<priorities::Priority>,
    /// `preemptible`.
    pub preemptible: Option<bool>,
    /// `spread`.
    pub spread: Option<bool>,
    /// `time_limit`.
    pub time_limit_ms: Option<u64>,
    /// `retries`.
    pub retries: Option<u32>,
    /// `start_within`.
    pub start_within_ms: Option<u64>,
    /// `warn_before`: how long, and the signal.
    pub warn_before: Option<(u64, String)>,
    /// `image`.
    pub image: Option<String>,
    /// `requirements`.
    pub requirements: Option<String>,
    /// `[tags]`.
    pub tags: BTreeMap<String, String>,
    /// `[env]`.
    pub environment: BTreeMap<String, String>,
}

/// Reads the file of a folder; nothing where there is none.
pub fn read(folder: &Path) -> Result<Project, Failure> {
    let path = folder.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Project::default()),
        Err(error) => Err(on_path("read", &path)(error)),
    }
}

/// Reads the text of the file.
pub fn parse(text: &str) -> Result<Project, Failure> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        Failure::usage(format!(
            "{FILE} is not TOML: {}",
            error.to_string().trim_end()
        ))
    })?;
    let mut project = Project::default();
    for (key, value) in &table {
        let read = Key { key, value };
        match key.as_str() {
            "name" => project.name = Some(read.text()?),
            "gpus" => project.gpus = Some(read.whole(0, i64::from(u32::MAX))? as u32),
            "gpu_fraction" => {
                project.gpu_share_milli = Some(read.written(parse::gpu_fraction_milli)?)
            }
            "gpu_memory" => project.gpu_memory_mib = Some(read.written(parse::size_mib)?),
            "gpu_model" => project.gpu_model = Some(read.text()?),
            "nodes" => project.nodes = Some(read.whole(1, i64::from(u32::MAX))? as u32),
            "cpus" => project.cpu_milli = Some(read.written(parse::cpus_milli)?),
            "memory" => project.memory_mib = Some(read.written(parse::size_mib)?),
            "pool" => project.pool = Some(read.text()?),
            "model" => project.model = Some(read.text()?),
            "priority" => project.priority = Some(read.written(priorities::priority)?),
            "preemptible" => project.preemptible = Some(read.yes_or_no()?),
            "spread" => project.spread = Some(read.yes_or_no()?),
            "time_limit" => project.time_limit_ms = Some(read.written(parse::duration_ms)?),
            "retries" => project.retries = Some(read.whole(0, 100)? as u32),
            "start_within" => project.start_within_ms = Some(read.written(parse::duration_ms)?),
            "warn_before" => project.warn_before = Some(read.written(parse::warning)?),
            "image" => project.image = Some(read.text()?),
            "requirements" => project.requirements = Some(read.text()?),
            "tags" => project.tags = read.strings()?,
            "env" => {
                project.environment = read.strings()?;
                for name in project.environment.keys() {
                    parse::environment_name(name).map_err(|failure| read.refused(failure))?;
                }
            }
            unknown => {
                let failure = Failure::usage(format!("{FILE} has no key `{unknown}`"))
                    .allowed(KEYS.join(", "));
                return Err(match parse::nearest(unknown, KEYS) {
                    Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                    None => failure.hint("see `platform run --help`"),
                });
            }
        }
    }
    if project.gpus.is_some() && project.gpu_share_milli.is_some() {
        return Err(
            Failure::usage(format!("{FILE} has both `gpus` and `gpu_fraction`"))
                .hint("keep one of them"),
        );
    }
    Ok(project)
}

struct Key<'a> {
    key: &'a str,
    value: &'a toml::Value,
}

impl Key<'_> {
    fn refused(&self, failure: Failure) -> Failure {
        let mut failure = failure;
        failure.body.message = format!("`{}` in {FILE}: {}", self.key, failure.body.message);
        failure
    }

    fn wrong(&self, allowed: &str) -> Failure {
        Failure::usage(format!("`{}` in {FILE} is {}", self.key, self.value)).allowed(allowed)
    }

    fn text(&self) -> Result<String, Failure> {
        match self.value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(self.wrong("a text that is not empty")),
        }
    }

    fn whole(&self, least: i64, most: i64) -> Result<i64, Failure> {
        match self.value.as_integer() {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(self.wrong(&format!("a whole number, {least} to {most}"))),
        }
    }

    fn yes_or_no(&self) -> Result<bool, Failure> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wrong("true or false"))
    }

    /// A value written as on the command line; a bare number is read as its text.
    fn written<T>(&self, parse: impl Fn(&str) -> Result<T, Failure>) -> Result<T, Failure> {
        let text = match self.value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            _ => return Err(self.wrong("a value as on the command line")),
        };
        parse(&text).map_err(|failure| self.refused(failure))
    }

    fn strings(&self) -> Result<BTreeMap<String, String>, Failure> {
        let table = self
            .value
            .as_table()
            .ok_or_else(|| self.wrong("a table of texts"))?;
        table
            .iter()
            .map(|(name, value)| match value {
                toml::Value::String(text) => Ok((name.clone(), text.clone())),
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                    Ok((name.clone(), value.to_string()))
                }
                _ => Err(Failure::usage(format!(
                    "`{name}` in [{}] of {FILE} is {value}",
                    self.key
                ))
                .allowed("a text")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_its_flag_is() {
        let project = parse(
            "name = 'bert'\ngpu_fraction = 0.5\ngpu_memory = '20G'\ngpu_model = 'A100'\nnodes = 2\ncpus = 4\nmemory = '16G'\npool = 'big'\n\
             model = 'm'\npriority = -5\npreemptible = false\nspread = true\ntime_limit = '2h'\nretries = 1\nimage = 'i'\nrequirements = 'r.txt'\n[tags]\nteam = 'nlp'\n[env]\nSEED = 1\n",
        )
        .unwrap();
        assert_eq!(
            (
                project.gpu_share_milli,
                project.gpu_memory_mib,
                project.cpu_milli
            ),
            (Some(500), Some(20480), Some(4000))
        );
        assert_eq!(
            (
                project.priority,
                project.preemptible,
                project.spread,
                project.time_limit_ms
            ),
            (
                Some(priorities::Priority::Number(-5)),
                Some(false),
                Some(true),
                Some(7_200_000)
            )
        );
        assert_eq!(project.tags["team"], "nlp");
        assert_eq!(project.environment["SEED"], "1");
    }

    #[test]
    fn a_wrong_file_is_refused_with_what_was_meant() {
        let wrong = [
            "gpu = 1",
            "timelimit = '2h'",
            "gpus = -1",
            "gpu_memory = 20",
            "gpus = 1\ngpu_fraction = 0.5",
            "tags = 'team'",
            "[env]\nPLATFORM_X = '1'",
            "name = ''",
        ];
        let refused: String = wrong
            .iter()
            .map(|text| format!("{}\n\n", parse(text).expect_err(text)))
            .collect();
        insta::assert_snapshot!(refused);
        assert_eq!(
            parse("gpus =").unwrap_err().exit,
            crate::failure::exit::USAGE
        );
    }
}
