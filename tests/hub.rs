//! Models by name, from a stand-in for the hub: the real program over real HTTP.
//!
//! Failures of the hub itself are tested beside the code that talks to it.

use crate::support::{Daemon, code_of, emberd, eventually, texts, tiny_model};
use emberd_protocol::{ErrorCode, Event};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the files of one model as the hub does.
struct StandIn {
    address: String,
    /// The number of responses with a file; `asked` has the requests.
    files_sent: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
    /// While it is held no file is sent.
    turn: Arc<Mutex<()>>,
}

impl StandIn {
    fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (files_sent, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (sent, log) = (Arc::clone(&files_sent), Arc::clone(&asked));
        let turn = Arc::<Mutex<()>>::default();
        let sending = Arc::clone(&turn);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, sent, log) = (folder.clone(), Arc::clone(&sent), Arc::clone(&log));
                let sending = Arc::clone(&sending);
                // This server ignores clients that hang up.
                std::thread::spawn(move || drop(serve(stream, &folder, &sent, &log, &sending)));
            }
        });
        Self { address, files_sent, asked, turn }
    }

    fn settings(folder: &Path) -> String {
        let file = folder.join("emberd.toml");
        let text = "models.hubbed.type = \"embedding\"\nmodels.hubbed.name = \"org/tiny\"\n\
                    models.absent.type = \"embedding\"\nmodels.absent.name = \"org/absent\"\n";
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// A daemon that uses this as the hub, with its cache in `home`.
    fn daemon(&self, home: &Path, offline: bool) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let mut command =
            emberd(&["serve", "--settings", &Self::settings(folder.path()), "--socket"]);
        command.arg(folder.path().join("emberd.sock"));
        command.env("HF_ENDPOINT", &self.address).env("HF_HOME", home).env("NO_PROXY", "*");
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
        Daemon::spawn(folder, command)
    }
}

fn serve(
    mut stream: TcpStream,
    folder: &Path,
    sent: &AtomicUsize,
    log: &Mutex<Vec<String>>,
    turn: &Mutex<()>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut request, mut line) = (String::new(), String::new());
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut token = String::new();
        while reader.read_line(&mut line)? > 2 {
            if line.to_lowercase().starts_with("authorization:") {
                token = format!(" with {}", line.split_once(' ').unwrap().1.trim());
            }
            line.clear();
        }
        log.lock().unwrap().push(request.trim().to_owned() + &token);
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (status, head, body) = answer(path, folder);
        if method == "GET" && path.contains("/resolve/") {
            drop(turn.lock());
            sent.fetch_add(1, Ordering::Relaxed);
        }
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n")?;
        if method == "GET" {
            stream.write_all(&body)?;
        }
    }
}

fn answer(path: &str, folder: &Path) -> (&'static str, String, Vec<u8>) {
    let path = path.split('?').next().unwrap_or(path);
    if path.starts_with("/api/models/org/tiny") {
        let mut names = Vec::new();
        list(folder, "", &mut names);
        let siblings: Vec<_> =
            names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"id": "org/tiny", "sha": COMMIT, "siblings": siblings});
        let head = "Content-Type: application/json\r\n".to_owned();
        return ("200 OK", head, body.to_string().into_bytes());
    }
    let file = path
        .strip_prefix("/org/tiny/resolve/")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, file)| folder.join(file));
    match file.and_then(|file| std::fs::read(file).ok()) {
        Some(bytes) => {
            let mut head = format!("X-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n");
            // As for a file in the repository itself: its hash in git.
            // Not a hash that could be checked: a mirror may use any etag.
            let etag = format!("{:032x}", bytes.len() as u128 * 0x1_0000_0001);
            write!(head, "ETag: \"{etag}\"\r\n").unwrap();
            ("200 OK", head, bytes)
        }
        None => {
            let head = "X-Error-Code: RepoNotFound\r\n".to_owned();
            ("404 Not Found", head, b"{\"error\": \"Repository not found\"}".to_vec())
        }
    }
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), names);
        } else {
            names.push(name);
        }
    }
}

#[test]
fn a_model_is_fetched_once_for_all_clients_and_is_available_offline_afterwards() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = StandIn::start(tiny_model(files.path()));
    let daemon = hub.daemon(home.path(), false);
    let heard = Mutex::new(vec![Vec::new(); 4]);
    std::thread::scope(|scope| {
        for at in 0..4 {
            let (daemon, heard) = (&daemon, &heard);
            scope.spawn(move || {
                let client = daemon.client();
                client
                    .preload_with("hubbed", |event| heard.lock().unwrap()[at].push(event))
                    .unwrap();
                assert_eq!(client.generate_embeddings(&texts(2), "hubbed").unwrap().len(), 2);
            });
        }
    });
    let status = daemon.status();
    let model = status.models.iter().find(|model| model.id.as_str() == "hubbed").unwrap();
    assert_eq!((model.loads, model.source.as_str()), (1, "org/tiny"));
    let sent = hub.files_sent.load(Ordering::Relaxed);
    assert!(sent > 3, "{:?}", hub.asked.lock().unwrap());
    let asked = hub.asked.lock().unwrap().clone();
    let mut gets: Vec<_> =
        asked.iter().filter(|line| line.starts_with("GET") && line.contains("/resolve/")).collect();
    gets.sort();
    gets.dedup();
    assert_eq!(gets.len(), sent, "each file was sent once: {asked:?}");
    let events = heard.into_inner().unwrap();
    let is_whole = |event: &Event| {
        matches!(event, Event::Fetching { done_bytes, total_bytes, .. }
            if done_bytes == total_bytes && *total_bytes > 400_000)
    };
    assert!(events.iter().any(|received| received.iter().any(is_whole)), "{events:?}");

    // Another daemon, no hub.
    let offline = StandIn { address: "http://127.0.0.1:9".into(), ..hub }.daemon(home.path(), true);
    let rows = offline.client().generate_embeddings(&texts(2), "hubbed").unwrap();
    assert_eq!(rows.len(), 2);
    let plan = offline.client().plan("absent").unwrap_err();
    assert!(plan.to_string().contains("org/absent"), "{plan}");
    let failure = offline.client().embedding_model("absent").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::ModelLoadError), "{failure}");
    assert!(failure.to_string().contains("HF_HUB_OFFLINE"), "{failure}");
}

#[test]
fn a_model_that_the_hub_lacks_is_reported_and_the_daemon_continues() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = StandIn::start(tiny_model(files.path()));
    let daemon = hub.daemon(home.path(), false);
    let client = daemon.client();
    assert_eq!(code_of(client.embedding_model("absent").map(drop)), ErrorCode::ModelLoadError);
    let message = client.embedding_model("absent").unwrap_err().to_string();
    assert!(message.contains("org/absent"), "{message}");
    eventually("the other one loads", || client.embedding_model("hubbed").is_ok());
}

#[test]
fn a_folder_comes_before_the_hub_and_the_hub_is_asked_for_the_revision_with_the_token() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = tiny_model(files.path());
    let hub = StandIn::start(model.clone());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("emberd.toml");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let of = |id: &str, path: &Path| {
        format!(
            "[models.{id}]\ntype = \"embedding\"\nname = \"org/tiny\"\nrevision = \"v9\"\n\
             local_path = {path:?}\n"
        )
    };
    std::fs::write(&file, of("here", &model) + &of("not_here", &empty)).unwrap();
    let mut command = emberd(&["serve", "--settings", file.to_str().unwrap(), "--socket"]);
    command.arg(folder.path().join("emberd.sock"));
    command.env("HF_ENDPOINT", &hub.address).env("HF_HOME", home.path()).env("NO_PROXY", "*");
    command.env("HF_TOKEN", "hf_for_tests").env_remove("HF_HUB_OFFLINE");
    let daemon = Daemon::spawn(folder, command);
    let asked = || hub.asked.lock().unwrap().clone();
    daemon.client().preload("here").unwrap();
    assert!(asked().is_empty(), "its folder holds the model: {:?}", asked());
    daemon.client().preload("not_here").unwrap();
    let listing = asked().into_iter().find(|line| line.contains("/api/models/")).unwrap();
    assert!(listing.contains("/revision/v9"), "{listing}");
    assert!(listing.ends_with(" with Bearer hf_for_tests"), "{listing}");
    let models = daemon.client().available_models().unwrap();
    let source =
        |id: &str| models.iter().find(|model| model.id.as_str() == id).unwrap().source.clone();
    assert_eq!(
        (source("here"), source("not_here")),
        (model.display().to_string(), "org/tiny".into())
    );
    let log = daemon.log();
    let warning = log.lines().find(|line| line.contains("local_path does not hold")).unwrap();
    assert!(warning.contains("empty") && warning.contains("config.json"), "{warning}");
}

#[test]
fn a_model_that_is_being_fetched_when_its_settings_change_is_what_it_was_and_then_the_new_one() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = tiny_model(files.path());
    let hub = StandIn::start(model.clone());
    let daemon = hub.daemon(home.path(), false);
    let source = || {
        let models = daemon.status().models;
        models.into_iter().find(|model| model.id.as_str() == "hubbed").unwrap().source
    };
    let turn = hub.turn.lock().unwrap();
    std::thread::scope(|scope| {
        let preload = scope.spawn(|| daemon.client().preload("hubbed"));
        eventually("it is being fetched", || {
            hub.asked.lock().unwrap().iter().any(|line| line.contains("/resolve/"))
        });
        let text = format!(
            "models.hubbed.type = \"embedding\"\nmodels.hubbed.name = \"org/tiny\"\n\
             models.hubbed.local_path = {model:?}\n"
        );
        std::fs::write(daemon.settings_file(), text).unwrap();
        let reloaded = daemon.client().reload().unwrap();
        let unchanged =
            reloaded.unchanged.iter().find(|setting| setting.key == "models.hubbed.local_path");
        assert!(unchanged.unwrap().effect.contains("next load"), "{reloaded:?}");
        drop(turn);
        preload.join().unwrap().unwrap();
    });
    assert_eq!(source(), "org/tiny");
    daemon.client().unload("hubbed").unwrap();
    daemon.client().preload("hubbed").unwrap();
    assert_eq!(source(), model.display().to_string());
}
