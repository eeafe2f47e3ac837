//! Nodes and pods as the openb traces write them, read by the names of their columns and checked.

use coordinator_core::model::{
    DeviceDescription, DeviceId, DeviceWiring, Node, NodeDescription, NodeName, PoolName,
};
use coordinator_core::scheduler::place::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// The runtime that every node of a trace offers and every pod asks for: traces name none.
const RUNTIME: &str = "process";
/// More than any machine has; larger numbers are mistakes in the file.
const MOST_CPU_MILLI: u64 = 1_000_000_000;
const MOST_MEMORY_MIB: u64 = 1 << 40;
const MOST_GPUS: u64 = 1_024;
const WHOLE_GPU_MILLI: u64 = 1_000;

/// What is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A column that must be there is not.
    #[error("{file} has no column {column:?}")]
    Column {
        /// Which file.
        file: &'static str,
        /// Which column.
        column: &'static str,
        /// The columns it has.
        present: Vec<String>,
    },
    /// A field holds what it may not.
    #[error("line {line} of {file}: {column} is {given:?}, and must be {allowed}")]
    Field {
        /// Which file.
        file: &'static str,
        /// Line, from 1.
        line: u64,
        /// Which column.
        column: &'static str,
        /// What it holds.
        given: String,
        /// What it may hold.
        allowed: String,
    },
    /// Two rows of one name.
    #[error("line {line} of {file}: {name:?} was named before")]
    Twice {
        /// Which file.
        file: &'static str,
        /// Line, from 1.
        line: u64,
        /// The name.
        name: String,
    },
    /// A file without rows.
    #[error("{file} names nothing")]
    Empty {
        /// Which file.
        file: &'static str,
    },
    /// An arrival of a pod that is not listed.
    #[error("no pod {name:?} is in the list of pods")]
    UnknownPod {
        /// The name.
        name: String,
    },
    /// A line that is no arrival.
    #[error("line {line} of the arrivals is {given:?}, and must be <index>,<pod name>")]
    Arrival {
        /// Line, from 1.
        line: u64,
        /// The line.
        given: String,
    },
    /// Not CSV, or not readable or writable.
    #[error("{file}: {reason}")]
    Unreadable {
        /// Which file.
        file: &'static str,
        /// What the reader or writer says.
        reason: String,
    },
}

impl Fault {
    pub(super) fn io(file: &'static str, error: &std::io::Error) -> Self {
        Self::Unreadable {
            file,
            reason: error.to_string(),
        }
    }

    pub(super) fn arrival(line: u64, given: &str) -> Self {
        Self::Arrival {
            line,
            given: given.chars().take(80).collect(),
        }
    }

    /// What to do about it, where that is not plain.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Column { present, .. } => Some(format!("its columns are {}", present.join(", "))),
            Self::UnknownPod { .. } => {
                Some("give the list that the order was made from with --pods".to_owned())
            }
            _ => None,
        }
    }
}

/// The nodes of a trace. Names and models are numbered: the core's names have a grammar, and its
/// models have families, and a trace knows of neither.
pub struct Nodes {
    nodes: Vec<Node>,
    names: Vec<String>,
    models: BTreeMap<String, usize>,
}

impl Nodes {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn capacity_milli(&self) -> u64 {
        let gpus: usize = self.nodes.iter().map(|node| node.devices.len()).sum();
        gpus as u64 * WHOLE_GPU_MILLI
    }

    /// The trace's name of a node.
    pub(super) fn traced_name(&self, name: &NodeName) -> &str {
        self.number(name)
            .and_then(|number| self.names.get(number))
            .map_or("", String::as_str)
    }

    pub(super) fn gpu_number(&self, name: &NodeName, device: &DeviceId) -> Option<usize> {
        let node = self.nodes.get(self.number(name)?)?;
        let mut devices = node.description.devices.iter();
        devices.position(|description| description.id == *device)
    }

    fn number(&self, name: &NodeName) -> Option<usize> {
        name.as_str().strip_prefix("node-")?.parse().ok()
    }
}

/// The pods of a trace.
pub struct Pods {
    shapes: BTreeMap<String, Shape>,
}

impl Pods {
    /// What a pod asks for.
    ///
    /// # Errors
    /// No pod has this name.
    pub fn shape(&self, name: &str) -> Result<&Shape, Fault> {
        self.shapes.get(name).ok_or_else(|| Fault::UnknownPod {
            name: name.chars().take(80).collect(),
        })
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = &Shape> {
        self.shapes.values()
    }
}

/// Reads `sn`, `cpu_milli`, `memory_mib`, `gpu` and `model`.
///
/// # Errors
/// A column is missing, a number is none or absurd, or a name comes twice.
pub fn read_nodes(input: impl Read) -> Result<Nodes, Fault> {
    let mut table = Table::open("nodes", input)?;
    let columns = ["sn", "cpu_milli", "memory_mib", "gpu", "model"];
    let [name, cpu, memory, gpu, model] = table.columns(columns)?;
    let mut nodes = Nodes {
        nodes: Vec::new(),
        names: Vec::new(),
        models: BTreeMap::new(),
    };
    let mut seen = BTreeSet::new();
    while let Some(row) = table.next()? {
        let traced = row.name(name, &mut seen)?;
        let gpus = row.number(gpu, MOST_GPUS)?;
        let next = nodes.models.len();
        let model = *nodes
            .models
            .entry(row.text(model).to_owned())
            .or_insert(next);
        let cpu_milli = row.number(cpu, MOST_CPU_MILLI)?;
        let memory_mib = row.number(memory, MOST_MEMORY_MIB)?;
        let number = nodes.nodes.len();
        nodes.names.push(traced);
        let described = describe(number, model, gpus, cpu_milli, memory_mib);
        nodes.nodes.push(Node::new(described));
    }
    if nodes.nodes.is_empty() {
        return Err(Fault::Empty { file: "nodes" });
    }
    Ok(nodes)
}

fn describe(
    number: usize,
    model: usize,
    gpus: u64,
    cpu_milli: u64,
    memory_mib: u64,
) -> NodeDescription {
    NodeDescription {
        name: NodeName::new(&format!("node-{number}")).expect("a number makes a good name"),
        pool: PoolName::default_pool(),
        boot_id: "trace".to_owned(),
        devices: (0..gpus)
            .map(|index| DeviceDescription {
                id: DeviceId(index.to_string().into()),
                index: index as u32,
                model: model_name(model),
                // Traces tell nothing of the memory of GPUs: nothing is asked of it either.
                memory_mib: 0,
                simulated: true,
                wiring: DeviceWiring::default(),
            })
            .collect(),
        cpu_milli,
        memory_mib,
        runtimes: BTreeSet::from([RUNTIME.to_owned()]),
        agent_version: String::new(),
        rack: None,
    }
}

/// Reads `name`, `cpu_milli`, `memory_mib`, `num_gpu`, `gpu_milli` and, where it is there,
/// `gpu_spec`: models joined by `|`, none meaning any.
///
/// # Errors
/// A column is missing, a number is none or absurd, or a name comes twice.
pub fn read_pods(input: impl Read, nodes: &Nodes) -> Result<Pods, Fault> {
    let mut table = Table::open("pods", input)?;
    let columns = ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];
    let [name, cpu, memory, num_gpu, gpu_milli] = table.columns(columns)?;
    let models = table.column("gpu_spec");
    let mut shapes = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(row) = table.next()? {
        let name = row.name(name, &mut seen)?;
        let devices = row.number(num_gpu, MOST_GPUS)?;
        let share_milli = if devices > 0 {
            row.number(gpu_milli, WHOLE_GPU_MILLI)?
        } else {
            WHOLE_GPU_MILLI
        };
        if share_milli == 0 {
            return Err(row.fault(gpu_milli, "from 1 to 1000 where num_gpu is not 0"));
        }
        let mut gpu_models: Vec<String> = models
            .filter(|_| devices > 0)
            .map(|column| row.text(column).split('|'))
            .into_iter()
            .flatten()
            .filter(|model| !model.is_empty())
            // A model that no node has gets a number that no node has.
            .map(|model| model_name(nodes.models.get(model).copied().unwrap_or(usize::MAX)))
            .collect();
        gpu_models.sort();
        gpu_models.dedup();
        let shape = Shape {
            devices: devices as u32,
            share_milli: share_milli as u32,
            gpu_memory_mib: None,
            gpu_memory_ceiling_mib: None,
            gpu_models,
            only_model: None,
            cpu_milli: row.number(cpu, MOST_CPU_MILLI)?,
            memory_mib: row.number(memory, MOST_MEMORY_MIB)?,
            runtime: RUNTIME,
        };
        shapes.insert(name, shape);
    }
    if shapes.is_empty() {
        return Err(Fault::Empty { file: "pods" });
    }
    Ok(Pods { shapes })
}

fn model_name(number: usize) -> String {
    format!("model{number}")
}

/// A column: its position and its name.
#[derive(Clone, Copy)]
struct Column {
    position: usize,
    name: &'static str,
}

/// A file of rows below a line of names.
struct Table<R> {
    file: &'static str,
    reader: csv::Reader<R>,
    header: Vec<String>,
}

/// One row, with where it stands.
struct Row {
    file: &'static str,
    line: u64,
    record: csv::StringRecord,
}

impl<R: Read> Table<R> {
    fn open(file: &'static str, input: R) -> Result<Self, Fault> {
        let mut reader = csv::Reader::from_reader(input);
        let header = reader
            .headers()
            .map_err(|error| unreadable(file, &error))?
            .iter()
            .map(|name| name.trim().trim_start_matches('\u{feff}').to_owned())
            .collect();
        Ok(Self {
            file,
            reader,
            header,
        })
    }

    fn column(&self, name: &'static str) -> Option<Column> {
        let position = self.header.iter().position(|present| present == name)?;
        Some(Column { position, name })
    }

    fn columns<const N: usize>(&self, names: [&'static str; N]) -> Result<[Column; N], Fault> {
        let mut columns = [Column {
            position: 0,
            name: "",
        }; N];
        for (column, name) in columns.iter_mut().zip(names) {
            *column = self.column(name).ok_or_else(|| Fault::Column {
                file: self.file,
                column: name,
                present: self.header.clone(),
            })?;
        }
        Ok(columns)
    }

    fn next(&mut self) -> Result<Option<Row>, Fault> {
        let mut record = csv::StringRecord::new();
        let more = self.reader.read_record(&mut record);
        let more = more.map_err(|error| unreadable(self.file, &error))?;
        Ok(more.then(|| Row {
            file: self.file,
            line: record.position().map_or(0, csv::Position::line),
            record,
        }))
    }
}

impl Row {
    fn text(&self, column: Column) -> &str {
        self.record.get(column.position).unwrap_or_default().trim()
    }

    fn fault(&self, column: Column, allowed: &str) -> Fault {
        Fault::Field {
            file: self.file,
            line: self.line,
            column: column.name,
            given: self.text(column).chars().take(80).collect(),
            allowed: allowed.to_owned(),
        }
    }

    fn number(&self, column: Column, most: u64) -> Result<u64, Fault> {
        let number = self.text(column).parse::<u64>().ok();
        number
            .filter(|number| *number <= most)
            .ok_or_else(|| self.fault(column, &format!("a whole number from 0 to {most}")))
    }

    /// A name, once, that can stand in a row of decisions.
    fn name(&self, column: Column, seen: &mut BTreeSet<String>) -> Result<String, Fault> {
        let name = self.text(column);
        if name.is_empty() || name.contains([',', '"', '\n', '\r']) {
            return Err(self.fault(column, "a name without commas, quotes and line ends"));
        }
        if !seen.insert(name.to_owned()) {
            return Err(Fault::Twice {
                file: self.file,
                line: self.line,
                name: name.chars().take(80).collect(),
            });
        }
        Ok(name.to_owned())
    }
}

fn unreadable(file: &'static str, error: &csv::Error) -> Fault {
    Fault::Unreadable {
        file,
        reason: error.to_string(),
    }
}
