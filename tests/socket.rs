//! The Unix socket's file among others who want its place: starters, planters, people with a careless umask.
#![cfg(feature = "daemon")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

use aquifer::daemon::socket::{Socket, SocketError};
use rustix::fs::{FileType, Mode, mknodat};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// The umask is the whole process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(path: &Path, group: Option<u32>) -> Result<Socket, SocketError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    Socket::bind(path, group)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_made_is_private_or_the_groups() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let group = getegid().as_raw();
    for (name, group, modes) in [("a", None, [0o700, 0o600]), ("b", Some(group), [0o750, 0o660])] {
        let path = dir.path().join(name).join("run").join("x.sock");
        let socket = bind(&path, group).unwrap();
        let directories = [path.parent().unwrap(), path.parent().unwrap().parent().unwrap()];
        assert_eq!(directories.map(mode), [modes[0]; 2]);
        assert_eq!((mode(&path), mode(&path.with_extension("sock.lock"))), (modes[1], 0o600));
        assert_eq!(socket.warnings(), [""; 0]);
        drop(socket);
        assert!(!path.exists());
    }
}

#[test]
fn a_careless_place_is_refused_or_told() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    let path = open.join("x.sock");
    allow(&open, 0o777);
    let error = bind(&path, None).unwrap_err().to_string();
    assert!(error.contains(&format!("`chmod o-w {}`", open.display())), "{error}");
    assert!(!path.exists());
    allow(&open, 0o1777);
    let warned = bind(&path, None).unwrap();
    assert!(warned.warnings()[0].contains("every user may write"), "{:?}", warned.warnings());
    drop(warned);
    allow(&open, 0o700);
    assert_eq!(bind(&path, None).unwrap().warnings(), [""; 0]);
    let group = getegid().as_raw();
    let closed = bind(&path, Some(group)).unwrap();
    assert!(
        closed.warnings()[0].contains(&format!("chmod g+x {}", open.display())),
        "{:?}",
        closed.warnings()
    );
    assert_eq!(mode(&open), 0o700, "a directory that was there is not opened");
    drop(closed);
    if geteuid().is_root() {
        std::os::unix::fs::chown(&open, Some(4_242), None).unwrap();
        let others = bind(&path, None).unwrap();
        assert!(others.warnings()[0].contains("belongs to user 4242"), "{:?}", others.warnings());
    } else {
        eprintln!("NOT TESTED: only root can make a directory of another user");
    }
}

#[test]
fn what_was_planted_is_not_followed() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let path = dir.path().join("x.sock");
    let lock = dir.path().join("x.sock.lock");

    for target in [&victim, &dir.path().join("nothing")] {
        symlink(target, &path).unwrap();
        assert!(matches!(bind(&path, None), Err(SocketError::NoSocket(_))));
        fs::remove_file(&path).unwrap();
        fs::remove_file(&lock).unwrap();
        symlink(target, &lock).unwrap();
        let error = bind(&path, None).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link; remove it"), "{error}");
        fs::remove_file(&lock).unwrap();
    }
    assert!(!dir.path().join("nothing").exists());
    mknodat(rustix::fs::CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let error = bind(&path, None).unwrap_err().to_string();
    assert!(error.contains("is no file; remove it"), "{error}");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    assert!(matches!(bind(&path, None), Err(SocketError::NoLock { .. })));
    fs::remove_dir(&lock).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    bind(&path, None).unwrap();
}

#[test]
fn of_many_starters_one_serves() {
    const STARTERS: usize = 8;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    for round in 0..100 {
        // What a crash leaves behind.
        drop(UnixListener::bind(&path).unwrap());
        let (start, end) = (Barrier::new(STARTERS), Barrier::new(STARTERS));
        let results: Vec<Result<(), String>> = thread::scope(|scope| {
            let starter = |_| {
                scope.spawn(|| {
                    start.wait();
                    let bound = bind(&path, None);
                    end.wait();
                    match bound {
                        Ok(_socket) => {
                            UnixStream::connect(&path).map(|_| ()).map_err(|error| error.to_string())
                        }
                        Err(SocketError::InUse(_)) => Err(String::new()),
                        Err(error) => Err(error.to_string()),
                    }
                })
            };
            let starters: Vec<_> = (0..STARTERS).map(starter).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "round {round}: {results:?}");
        let others = results.iter().filter_map(|result| result.as_ref().err());
        others.for_each(|error| assert_eq!(error, "", "round {round}"));
        assert!(!path.exists());
    }
}

/// Starts and stops while another user connects and plants links: how often it got a connection, and how often the start
/// was in vain.
fn besieged(directory: &Path, victim: &Path, cycles: usize) -> (usize, usize) {
    let path = directory.join("x.sock");
    let done = AtomicBool::new(false);
    let connected = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            set_thread_groups(&[]).unwrap();
            set_thread_gid(Gid::from_raw(4_242)).unwrap();
            set_thread_uid(Uid::from_raw(4_242)).unwrap();
            while !done.load(Ordering::Relaxed) {
                if symlink(victim, &path).is_ok() {
                    let _ = fs::remove_file(&path);
                }
                // Only a socket of the daemon: this user makes none.
                if UnixStream::connect(&path).is_ok() {
                    connected.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut in_vain = 0;
        for _ in 0..cycles {
            match bind(&path, None) {
                Ok(socket) => {
                    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
                    assert_eq!(mode(&path), 0o600);
                    drop(socket);
                }
                Err(error) => {
                    assert!(!matches!(error, SocketError::InUse(_)), "{error}");
                    in_vain += 1;
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        (connected.load(Ordering::Relaxed), in_vain)
    })
}

#[test]
fn another_user_neither_connects_nor_takes_the_place() {
    let _alone = alone();
    if !geteuid().is_root() {
        eprintln!("NOT TESTED: only root can be another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    allow(dir.path(), 0o755);
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let before = fs::symlink_metadata(&victim).unwrap().mode();
    for (name, mode) in [("private", 0o700), ("reachable", 0o755), ("shared", 0o1777)] {
        let directory = dir.path().join(name);
        fs::create_dir(&directory).unwrap();
        allow(&directory, mode);
        let (connected, in_vain) = besieged(&directory, &victim, 2_000);
        assert_eq!(connected, 0, "{name}");
        // Where everybody may write, a planted link keeps the daemon from starting, which it says; nothing worse.
        assert!(in_vain == 0 || name == "shared", "{name}: {in_vain}");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::symlink_metadata(&victim).unwrap().mode(), before);
}
