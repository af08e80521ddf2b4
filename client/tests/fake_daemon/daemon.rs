use emberd_client::{Client, ClientBuilder};
use emberd_protocol::{
    CodecError, Decoder, ElementType, EmbedRequest, Embedded, ErrorCode, Event, Failure, Frame,
    FrameKind, Free, Hello, LeaseId, Leased, Limits, ModelId, ModelInfo, ModelKind, Place, Request,
    Response, SegmentAnnounce, SegmentBackend, SegmentHandle, SegmentId, SlotRef, Welcome,
};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that runs a daemon's script. When the script ends or panics its sockets close, so that
/// no client waits forever.
pub(crate) struct Daemon<T> {
    path: PathBuf,
    script: JoinHandle<T>,
    _folder: TempDir,
}

impl<T: Send + 'static> Daemon<T> {
    pub(crate) fn run(script: impl FnOnce(&Listener) -> T + Send + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("emberd.sock");
        let listener = Listener::at(&path);
        let script = std::thread::spawn(move || script(&listener));
        Self { path, script, _folder: folder }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A client that sends every request once, and does not wait for a daemon that restarts.
    pub(crate) fn client(&self) -> Client {
        once().connect_to(&self.path).unwrap()
    }

    /// A client with the default options, except for time limits that no busy machine exceeds.
    pub(crate) fn patient_client(&self) -> Client {
        builder().connect_to(&self.path).unwrap()
    }

    /// The script's result, or its panic.
    pub(crate) fn end(self) -> T {
        self.script.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// One connection: the daemon plays a script on it, while a client that sends every request once
/// acts and is then dropped.
pub(crate) fn scene(script: impl FnOnce(&mut Peer) + Send + 'static, act: impl FnOnce(&Client)) {
    let daemon = Daemon::run(|listener| script(&mut listener.welcome()));
    let client = daemon.client();
    act(&client);
    drop(client);
    daemon.end();
}

pub(crate) fn builder() -> ClientBuilder {
    Client::builder().name("test").handshake_timeout(PATIENCE).reconnect_patience(PATIENCE)
}

pub(crate) fn once() -> ClientBuilder {
    builder().repeat_requests(false).reconnect_patience(Duration::ZERO)
}

pub(crate) struct Listener(UnixListener);

impl Listener {
    pub(crate) fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        // Linux bounds `accept` by it, too.
        let patience = TimeVal::seconds(i64::try_from(PATIENCE.as_secs()).unwrap());
        setsockopt(&listener, ReceiveTimeout, &patience).unwrap();
        Self(listener)
    }

    /// The next connection, before anything is read or sent.
    pub(crate) fn accept(&self) -> Peer {
        let (stream, _) = self.0.accept().expect("somebody connects");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Peer { stream, decoder: Decoder::default() }
    }

    /// The next connection, welcomed.
    pub(crate) fn welcome(&self) -> Peer {
        self.welcome_within(limits())
    }

    pub(crate) fn welcome_within(&self, limits: Limits) -> Peer {
        let mut peer = self.accept();
        peer.hello();
        peer.say(Frame::message(FrameKind::Welcome, 0, &welcome(limits)));
        peer
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_texts: 1000,
        max_frame_bytes: 32 << 20,
        max_requests_in_flight: 16,
        max_leases: 16,
        inline_bytes: 0,
        credit_bytes: 1 << 20,
    }
}

pub(crate) fn welcome(limits: Limits) -> Welcome {
    Welcome {
        daemon_version: "fake".into(),
        daemon_pid: std::process::id(),
        backend: SegmentBackend::Memfd,
        limits,
    }
}

/// A connected client, as the daemon sees it.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    /// The next frame, or `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.decoder.feed(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the client neither speaks nor hangs up: {error}"),
            }
        }
    }

    pub(crate) fn hello(&mut self) -> Hello {
        let frame = self.next().expect("a hello");
        assert_eq!((frame.kind, frame.id), (FrameKind::Hello, 0));
        frame.decode().unwrap()
    }

    /// The next frame, which is a request, and its number.
    pub(crate) fn request(&mut self) -> (u64, Request) {
        let frame = self.next().expect("a request");
        assert_eq!(frame.kind, FrameKind::Request);
        (frame.id, frame.decode().unwrap())
    }

    /// The number of the next frame, which asks for rows.
    pub(crate) fn embed(&mut self) -> u64 {
        let (id, request) = self.request();
        assert!(matches!(request, Request::Embed(EmbedRequest { .. })), "{request:?}");
        id
    }

    /// Answers the next frame, which asks for rows, with rows in a slot of segment 1.
    pub(crate) fn rows(&mut self, offset: u64, rows: u32) -> SlotRef {
        let id = self.embed();
        let (slot, response) = rows_in(1, offset, rows);
        self.answer(id, &response);
        slot
    }

    /// The number of the next frame, which is a ping.
    pub(crate) fn ping(&mut self) -> u64 {
        let (id, request) = self.request();
        assert_eq!(request, Request::Ping);
        id
    }

    pub(crate) fn pong(&mut self) {
        let id = self.ping();
        self.answer(id, &Response::Pong);
    }

    /// Grants the lease that the next frame asks for.
    pub(crate) fn grant(&mut self, lease: u64) {
        let (id, request) = self.request();
        let Request::Acquire { model, .. } = request else {
            panic!("{request:?} is not an acquire")
        };
        self.answer(id, &Response::Leased(leased(lease, model)));
    }

    /// The next frame, which releases a lease: its number, and the lease's.
    pub(crate) fn release(&mut self) -> (u64, u64) {
        let (id, request) = self.request();
        let Request::Release { lease } = request else { panic!("{request:?} is not a release") };
        (id, lease.0)
    }

    /// The slots of the next frame, which frees.
    pub(crate) fn freed(&mut self) -> Vec<SlotRef> {
        let frame = self.next().expect("a free");
        assert_eq!(frame.kind, FrameKind::Free);
        frame.decode::<Free>().unwrap().slots
    }

    /// Waits for the client to hang up, without another frame.
    pub(crate) fn silence(&mut self) {
        let frame = self.next();
        assert!(frame.is_none(), "nothing more was to come, but {frame:?} did");
    }

    /// Waits for the client to hang up, ignoring the frames before.
    pub(crate) fn drain(&mut self) {
        while self.next().is_some() {}
    }

    /// The number of the next frame, which cancels a request.
    pub(crate) fn cancel(&mut self) -> u64 {
        let frame = self.next().expect("a cancel");
        assert_eq!(frame.kind, FrameKind::Cancel);
        frame.id
    }

    pub(crate) fn event(&mut self, id: u64, event: &Event) {
        self.say(Frame::message(FrameKind::Event, id, event));
    }

    pub(crate) fn fail(&mut self, id: u64, code: ErrorCode) {
        self.answer(id, &Response::Failed(Failure::retryable(code, "no")));
    }

    pub(crate) fn answer(&mut self, id: u64, response: &Response) {
        self.say(Frame::message(FrameKind::Response, id, response));
    }

    /// Sends a frame that was just made.
    pub(crate) fn say(&mut self, frame: Result<Frame, CodecError>) {
        self.bytes(&frame.unwrap().to_bytes());
    }

    /// Sends bytes, unless the client has hung up already, which some tests provoke.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes with descriptors on the first of them.
    pub(crate) fn bytes_with(&mut self, bytes: &[u8], descriptors: &[&OwnedFd]) {
        let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        let pieces = [IoSlice::new(bytes)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &pieces, &control, flags, None).unwrap();
        assert_eq!(sent, bytes.len());
    }

    pub(crate) fn announce(&mut self, segment: u32, len_bytes: u64, memory: &OwnedFd) {
        self.bytes_with(&announcement(segment, len_bytes).to_bytes(), &[memory]);
    }
}

/// The announcement of a segment whose descriptor rides along.
pub(crate) fn announcement(segment: u32, len_bytes: u64) -> Frame {
    let segment = SegmentId(segment);
    let announce = SegmentAnnounce { segment, len_bytes, handle: SegmentHandle::Descriptor };
    let mut frame = Frame::message(FrameKind::Segment, 0, &announce).unwrap();
    frame.descriptors = 1;
    frame
}

pub(crate) fn leased(lease: u64, model: ModelId) -> Leased {
    let model = ModelInfo {
        id: model,
        kind: ModelKind::Embedding,
        methods: vec![emberd_protocol::Method::Embed],
        architecture: "fake".into(),
        device: "cpu".into(),
        dimension: DIMENSION,
        max_tokens: 512,
        normalized: false,
        max_output_tokens: 0,
        prompts: Vec::new(),
        default_prompt: None,
        similarity: None,
        labels: Vec::new(),
        weight_bytes: 0,
    };
    Leased { lease: LeaseId(lease), model }
}

/// Values in a row of the fake model.
pub(crate) const DIMENSION: u32 = 4;

/// A response with a number of rows, inline or in a slot.
pub(crate) fn rows_at(rows: u32, place: Place) -> Embedded {
    Embedded {
        rows,
        dimension: DIMENSION,
        element: ElementType::F32,
        place,
        tokens: u64::from(rows) * 2,
        truncated: Vec::new(),
        ranges: None,
    }
}

/// A response with a number of rows in a slot, which is exactly as long as they are.
pub(crate) fn rows_in(segment: u32, offset: u64, rows: u32) -> (SlotRef, Response) {
    let len_bytes = u64::from(rows * DIMENSION) * 4;
    let slot = SlotRef { segment: SegmentId(segment), offset, len_bytes, generation: 7 };
    (slot, Response::Embedded(rows_at(rows, Place::Slot(slot))))
}

/// Bytes of the segments in these tests.
pub(crate) const SEGMENT_BYTES: u64 = 4096;

/// The seals of an honest daemon.
pub(crate) const SEALS: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_FUTURE_WRITE);

/// The memory files of one test. Their name sets them apart from those of other tests that run at
/// the same time, so the test can count those that this process still holds.
pub(crate) struct Memory {
    name: String,
}

impl Memory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // The name ends with a mark, so that number 1 is not found in number 10.
        let name = format!("fake-{}-", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { name }
    }

    /// A file of floats in which the value at position n is n.
    pub(crate) fn file(&self, len_bytes: u64, seals: SealFlag) -> OwnedFd {
        let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
        let mut file = File::from(memfd_create(self.name.as_str(), flags).unwrap());
        let values = (0..u16::try_from(len_bytes / 4).unwrap()).map(f32::from);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        file.write_all(&bytes).unwrap();
        file.set_len(len_bytes).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        file.into()
    }

    /// One that an honest daemon would send.
    pub(crate) fn sealed(&self) -> OwnedFd {
        self.file(SEGMENT_BYTES, SEALS)
    }

    /// Descriptors of these files that this process has open.
    pub(crate) fn open(&self) -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        // A descriptor that was closed after it was listed is not a leak.
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().contains(&self.name)).count()
    }

    /// Mappings of these files in this process.
    pub(crate) fn mapped(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&self.name)).count()
    }

    /// Checks that this process has none of the files open or mapped.
    pub(crate) fn assert_gone(&self, case: &str) {
        assert_eq!((self.open(), self.mapped()), (0, 0), "open and mapped after: {case}");
    }
}

/// The values from a position on, as [`Memory::file`] wrote them.
pub(crate) fn values(from: u16, count: u16) -> Vec<f32> {
    (from..from + count).map(f32::from).collect()
}
