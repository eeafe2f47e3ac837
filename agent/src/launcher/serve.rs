//! The launcher's one loop: starts asked for, ends of children, and who listens.

use super::protocol::{Answer, Event, ExitRecord, Request, Running, StartRequest, decode, encode};
use super::spawn::{self, Spawned};
use super::{read_exit, short_path};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, getrlimit,
    kill_process_group, pidfd_open, setrlimit, waitid,
};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// With no child and no agent for this long, nothing needs a launcher.
const LINGER: Duration = Duration::from_secs(60);
/// Starts between two looks at ends and connections: a fork takes about a millisecond, so an end waits
/// at most a few of them.
const STARTS_A_TURN: usize = 4;
/// An agent that does not read is cut off here; it comes back and reads the table instead.
const BACKLOG_LIMIT_BYTES: usize = 64 << 20;
/// Open files of a workload, unless the machine's hard limit is lower.
const OPEN_FILES: u64 = 65_536;

const LISTENER: u64 = 0;
/// Tokens above are connections, below are process ids of children.
const FIRST_CONNECTION: u64 = 1 << 40;

/// Runs the launcher until nothing needs it. Call it on the main thread of a fresh process, before any
/// other thread exists.
pub fn main(socket: &Path) -> ExitCode {
    match Launcher::open(socket) {
        // Another launcher serves this folder: that one is as good.
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(mut launcher)) => match launcher.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(socket, &error),
        },
        Err(error) => failed(socket, &error),
    }
}

fn failed(socket: &Path, error: &io::Error) -> ExitCode {
    // Standard error is the launcher's log file.
    let _ = writeln!(io::stderr(), "launcher {}: {error}", socket.display());
    ExitCode::FAILURE
}

struct Child {
    running: Running,
    folder: PathBuf,
    handle: OwnedFd,
}

struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    wants_to_write: bool,
    /// It has the table; events come after it.
    greeted: bool,
}

struct Launcher {
    listener: UnixListener,
    poll: OwnedFd,
    /// Held for life: one launcher for each folder.
    _lock: File,
    own: Pid,
    children: HashMap<u64, Child>,
    names: HashMap<String, u64>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    queue: VecDeque<StartRequest>,
    idle_since: Option<Instant>,
}

fn boottime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

impl Launcher {
    fn open(socket: &Path) -> io::Result<Option<Self>> {
        // Fails where we are a session leader already, which is what we want to be.
        let _ = rustix::process::setsid();
        let (folder, short) = short_path(socket)?;
        let lock = File::create(short.with_extension("lock"))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        match fs::remove_file(&short) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&short)?;
        fs::set_permissions(&short, fs::Permissions::from_mode(0o600))?;
        drop(folder);
        listener.set_nonblocking(true)?;
        limit_children();
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &poll,
            &listener,
            epoll::EventData::new_u64(LISTENER),
            epoll::EventFlags::IN,
        )?;
        Ok(Some(Self {
            listener,
            poll,
            _lock: lock,
            own: getpid(),
            children: HashMap::new(),
            names: HashMap::new(),
            connections: BTreeMap::new(),
            next_connection: FIRST_CONNECTION,
            queue: VecDeque::new(),
            idle_since: Some(Instant::now()),
        }))
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(256);
        loop {
            let idle =
                self.children.is_empty() && self.connections.is_empty() && self.queue.is_empty();
            let wait = if !self.queue.is_empty() {
                self.idle_since = None;
                Some(Duration::ZERO)
            } else if idle {
                let since = *self.idle_since.get_or_insert_with(Instant::now);
                let left = LINGER.saturating_sub(since.elapsed());
                if left.is_zero() {
                    return Ok(());
                }
                Some(left)
            } else {
                self.idle_since = None;
                None
            };
            let wait = wait.map(|wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            ready.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut ready), wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut events = Vec::new();
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    token if token >= FIRST_CONNECTION => self.converse(token, event.flags),
                    token => self.reap(token, &mut events),
                }
            }
            for _ in 0..STARTS_A_TURN {
                let Some(request) = self.queue.pop_front() else {
                    break;
                };
                self.start(request, &mut events);
            }
            if !events.is_empty() {
                self.tell(&Answer::Events(events));
            }
            if self.queue.is_empty() {
                self.greet();
            }
        }
    }

    /// Sends the table to those who have come. Only when nothing that an earlier agent asked for is still
    /// to be started: what a table does not name and the disk says was started is taken for dead.
    fn greet(&mut self) {
        let new: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.greeted)
            .map(|(token, _)| *token)
            .collect();
        for token in new {
            let table = self.children.values().map(|child| child.running.clone());
            let table = Answer::Table(table.collect());
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.greeted = true;
                if encode(&table, &mut connection.output).is_err() {
                    self.connections.remove(&token);
                }
            }
            self.flush(token);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // A new agent comes after the old one has died: take all the old one had sent first.
            for token in self.connections.keys().copied().collect::<Vec<_>>() {
                self.converse(token, epoll::EventFlags::IN);
            }
            let token = self.next_connection;
            self.next_connection += 1;
            let connection = Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                wants_to_write: false,
                greeted: false,
            };
            let added = connection.stream.set_nonblocking(true).is_ok()
                && epoll::add(
                    &self.poll,
                    &connection.stream,
                    epoll::EventData::new_u64(token),
                    epoll::EventFlags::IN,
                )
                .is_ok();
            if added {
                self.connections.insert(token, connection);
            }
        }
    }

    fn converse(&mut self, token: u64, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(token);
        }
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut chunk = [0; 64 << 10];
        let mut open = loop {
            match connection.stream.read(&mut chunk) {
                Ok(0) => break false,
                Ok(read) => connection.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        // What arrived whole counts, also from an agent that has died since: it recorded its intent.
        loop {
            let Some(connection) = self.connections.get_mut(&token) else {
                return;
            };
            match decode::<Request>(&mut connection.input) {
                Ok(Some(Request::Start(starts))) => self.queue.extend(starts),
                Ok(Some(Request::Signal { name, signal })) => self.signal(&name, signal),
                Ok(None) => break,
                Err(error) => {
                    let _ = writeln!(io::stderr(), "launcher: a bad frame: {error}");
                    open = false;
                    break;
                }
            }
        }
        if !open {
            self.connections.remove(&token);
        }
    }

    fn signal(&self, name: &str, signal: i32) {
        let child = self
            .names
            .get(name)
            .and_then(|token| self.children.get(token));
        if let Some(child) = child
            && let Some(group) = Pid::from_raw(child.running.process.cast_signed())
            && let Some(signal) = Signal::from_named_raw(signal)
        {
            // The leader is not reaped yet, so the number cannot belong to anyone else.
            let _ = kill_process_group(group, signal);
        }
    }

    fn start(&mut self, request: StartRequest, events: &mut Vec<Event>) {
        if let Some(child) = self
            .names
            .get(&request.name)
            .and_then(|token| self.children.get(token))
        {
            events.push(Event::Started(child.running.clone()));
            return;
        }
        let (spawned, started) = spawn::spawn(&request, self.own);
        match spawned {
            Spawned::Known => events.push(known(request)),
            Spawned::Failed {
                message,
                node_fault,
            } => {
                let exit = ExitRecord {
                    failed: Some(message.clone()),
                    node_fault,
                    ..ended_now()
                };
                // A full disk cannot keep it; the answer still says so.
                let _ = spawn::record_exit(&request.folder, &exit);
                events.push(Event::Failed {
                    name: request.name,
                    message,
                    node_fault,
                });
            }
            Spawned::Process(process) => {
                let running = Running {
                    name: request.name.clone(),
                    process,
                    started_boottime_us: boottime_us(),
                    at_us: wall_us(),
                };
                if let Some(started) = started {
                    spawn::record(started, &running);
                }
                let token = u64::from(process);
                match self.watch(process) {
                    Ok(handle) => {
                        self.names.insert(request.name, token);
                        self.children.insert(
                            token,
                            Child {
                                running: running.clone(),
                                folder: request.folder,
                                handle,
                            },
                        );
                        events.push(Event::Started(running));
                    }
                    Err(error) => {
                        // It cannot be waited for, so it must not live.
                        if let Some(group) = Pid::from_raw(process.cast_signed()) {
                            let _ = kill_process_group(group, Signal::KILL);
                            let _ = waitid(WaitId::Pid(group), WaitIdOptions::EXITED);
                        }
                        events.push(Event::Failed {
                            name: request.name,
                            message: format!("cannot watch the process: {error}"),
                            node_fault: true,
                        });
                    }
                }
            }
        }
    }

    fn watch(&self, process: u32) -> io::Result<OwnedFd> {
        let process =
            Pid::from_raw(process.cast_signed()).ok_or_else(|| io::Error::other("process 0"))?;
        let handle = pidfd_open(process, PidfdFlags::empty())?;
        epoll::add(
            &self.poll,
            &handle,
            epoll::EventData::new_u64(u64::from(process.as_raw_nonzero().get().cast_unsigned())),
            epoll::EventFlags::IN,
        )?;
        Ok(handle)
    }

    fn reap(&mut self, token: u64, events: &mut Vec<Event>) {
        let Some(child) = self.children.get(&token) else {
            return;
        };
        // What the leader left behind in its group dies with it: an ended run holds nothing. Before the
        // wait, while the dead leader still keeps the number from being given to another.
        if let Some(group) = Pid::from_raw(child.running.process.cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(child.handle.as_fd()), options) {
            Ok(Some(status)) => status,
            Ok(None) | Err(rustix::io::Errno::INTR) => return,
            Err(error) => {
                let _ = writeln!(io::stderr(), "launcher: cannot wait: {error}");
                return;
            }
        };
        let Some(child) = self.children.remove(&token) else {
            return;
        };
        let exit = ExitRecord {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            ..ended_now()
        };
        if let Err(error) = spawn::record_exit(&child.folder, &exit) {
            let _ = writeln!(
                io::stderr(),
                "launcher: {}: {error}",
                child.folder.display()
            );
        }
        self.names.remove(&child.running.name);
        events.push(Event::Ended {
            name: child.running.name,
            exit,
        });
    }

    /// Tells every agent that listens.
    fn tell(&mut self, answer: &Answer) {
        let mut frame = Vec::new();
        if encode(answer, &mut frame).is_err() {
            return;
        }
        for token in self.connections.keys().copied().collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(&token)
                && connection.greeted
            {
                connection.output.extend_from_slice(&frame);
                if connection.output.len() > BACKLOG_LIMIT_BYTES {
                    self.connections.remove(&token);
                } else {
                    self.flush(token);
                }
            }
        }
    }

    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut sent = 0;
        let mut open = true;
        while sent < connection.output.len() {
            match connection.stream.write(&connection.output[sent..]) {
                Ok(0) => open = false,
                Ok(wrote) => {
                    sent += wrote;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => open = error.kind() == io::ErrorKind::WouldBlock,
            }
            break;
        }
        connection.output.drain(..sent);
        let wants_to_write = !connection.output.is_empty();
        if open && wants_to_write != connection.wants_to_write {
            connection.wants_to_write = wants_to_write;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, wants_to_write);
            let data = epoll::EventData::new_u64(token);
            open = epoll::modify(&self.poll, &connection.stream, data, flags).is_ok();
        }
        if !open {
            self.connections.remove(&token);
        }
    }
}

fn ended_now() -> ExitRecord {
    ExitRecord {
        code: None,
        signal: None,
        failed: None,
        node_fault: false,
        lost: None,
        at_us: wall_us(),
    }
}

/// A name that was started before and does not live: how it ended, as far as anyone knows.
fn known(request: StartRequest) -> Event {
    match read_exit(&request.folder) {
        Some(ExitRecord {
            failed: Some(message),
            node_fault,
            ..
        }) => Event::Failed {
            name: request.name,
            message,
            node_fault,
        },
        Some(exit) => Event::Ended {
            name: request.name,
            exit,
        },
        None => Event::Ended {
            name: request.name,
            exit: ExitRecord {
                lost: Some("the launcher that started it died".to_owned()),
                ..ended_now()
            },
        },
    }
}

/// Limits that every child inherits, set once here and not once a fork.
fn limit_children() {
    let core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, core);
    let files = getrlimit(Resource::Nofile);
    let wanted = files
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum: files.maximum,
        },
    );
}
