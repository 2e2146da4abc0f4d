//! From a command's name to its reply.

use super::command::Args;
use super::reply::Replies;

/// What Redis clients look for in a server's version: the one whose commands these are like.
const REDIS_VERSION: &str = "7.2.0";

/// A command as `COMMAND` tells it.
struct Command {
    name: &'static str,
    /// How many arguments it takes, its name among them; at least so many if negative.
    arity: i64,
    flags: &'static [&'static str],
    summary: &'static str,
}

const COMMANDS: [Command; 14] = [
    Command {
        name: "cl.throttle",
        arity: -5,
        flags: &["write", "fast"],
        summary: "CL.THROTTLE key max_burst count period [quantity]: takes of a limit of the swarm, as redis-cell does",
    },
    Command {
        name: "aq.acquire",
        arity: -2,
        flags: &["write", "blocking"],
        summary: "AQ.ACQUIRE pool [REQUESTS n] [TOKENS n] [COST limit n] [KEY key] [AGENT name] [PRIORITY class] \
                  [WAIT ms] [TTL ms] [BIND]: asks for a permit",
    },
    Command {
        name: "aq.commit",
        arity: -2,
        flags: &["write", "fast"],
        summary: "AQ.COMMIT permit [REQUESTS n] [TOKENS n] [COST limit n]: tells what was really used",
    },
    Command {
        name: "aq.release",
        arity: 2,
        flags: &["write", "fast"],
        summary: "AQ.RELEASE permit: tells that nothing was used",
    },
    Command {
        name: "aq.status",
        arity: 1,
        flags: &["readonly"],
        summary: "AQ.STATUS: the node, its pools and peers, as JSON",
    },
    Command { name: "ping", arity: -1, flags: &["fast"], summary: "PING [message]" },
    Command { name: "echo", arity: 2, flags: &["fast"], summary: "ECHO message" },
    Command {
        name: "hello",
        arity: -1,
        flags: &["fast"],
        summary: "HELLO [2|3 [SETNAME name]]: chooses the protocol",
    },
    Command { name: "client", arity: -2, flags: &[], summary: "CLIENT ID|GETNAME|SETNAME|SETINFO|INFO" },
    Command { name: "command", arity: -1, flags: &[], summary: "COMMAND [COUNT|LIST|INFO|DOCS]" },
    Command { name: "info", arity: -1, flags: &[], summary: "INFO" },
    Command { name: "select", arity: 2, flags: &["fast"], summary: "SELECT 0: there is one database" },
    Command { name: "reset", arity: 1, flags: &["fast"], summary: "RESET: as if newly connected" },
    Command { name: "quit", arity: 1, flags: &["fast"], summary: "QUIT: closes the connection" },
];

/// What a connection has said of itself.
#[derive(Clone, Debug)]
pub struct Session {
    id: u64,
    name: Vec<u8>,
}

impl Session {
    /// A connection that has said nothing.
    pub fn new(id: u64) -> Self {
        Self { id, name: Vec::new() }
    }

    /// The connection's number; none is given twice.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is the connection of this number.
    pub fn is(&self, id: u64) -> bool {
        self.id == id
    }
}

/// What follows a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next command.
    Go,
    /// The end of the connection.
    Close,
}

/// The longest name that a client may give itself.
const NAME_MAX: usize = 128;

/// Replies to a command that needs nothing but the connection.
pub fn answer(args: &Args<'_>, session: &mut Session, replies: &mut Replies) -> Next {
    let name = args[0].to_ascii_lowercase();
    let count = args.len();
    match (&name[..], count) {
        (b"ping", 1) => replies.word("PONG"),
        (b"ping" | b"echo", 2) => replies.bulk(args[1]),
        (b"hello", _) => hello(args, session, replies),
        (b"client", 2..) => client(args, session, replies),
        (b"command", _) => command(args, replies),
        (b"info", _) => replies.bulk(info()),
        (b"select", 2) if args[1] == b"0" => replies.word("OK"),
        (b"select", 2) => replies.error("ERR DB index is out of range: there is one, 0"),
        // redis-benchmark asks for two settings, to print them.
        (b"config", 3) if args[1].eq_ignore_ascii_case(b"get") => {
            replies.map(1);
            replies.bulk(args[2]);
            replies.bulk("");
        }
        (b"reset", 1) => {
            *session = Session::new(session.id);
            replies.version3 = false;
            replies.word("RESET");
        }
        (b"quit", _) => {
            replies.word("OK");
            return Next::Close;
        }
        _ => {
            let name = String::from_utf8_lossy(&name);
            let known = COMMANDS.iter().find(|command| *command.name == *name);
            replies.error(&match known {
                Some(command) => format!("ERR {}", wrong_count(command.name)),
                None => unknown(&name),
            });
        }
    }
    Next::Go
}

/// What Redis says if a command has too many arguments, or too few.
pub fn wrong_count(command: &str) -> String {
    let summary = COMMANDS.iter().find(|known| known.name == command).map_or("", |known| known.summary);
    format!("wrong number of arguments for '{command}' command: {summary}")
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    let near = COMMANDS.iter().map(|command| (strsim::levenshtein(command.name, &name), command.name)).min();
    match near {
        Some((distance, near)) if distance <= 2 => {
            format!("ERR unknown command '{name}', did you mean {near}?")
        }
        _ => format!("ERR unknown command '{name}'; this is no Redis, COMMAND lists what there is"),
    }
}

fn hello(args: &Args<'_>, session: &mut Session, replies: &mut Replies) {
    let mut version3 = replies.version3;
    let mut rest = &args[1..];
    if let [version, more @ ..] = rest {
        version3 = match version {
            [b'2'] => false,
            [b'3'] => true,
            _ => return replies.error("NOPROTO unsupported protocol version, 2 and 3 are spoken"),
        };
        rest = more;
    }
    let mut name = None;
    loop {
        rest = match rest {
            [] => break,
            [option, _, _, ..] if option.eq_ignore_ascii_case(b"auth") => {
                return replies.error(
                    "WRONGPASS there are no passwords: who may connect is decided by the socket's file, or the address",
                );
            }
            [option, given, rest @ ..]
                if option.eq_ignore_ascii_case(b"setname") && given.len() <= NAME_MAX =>
            {
                name = Some(given.to_vec());
                rest
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(&option[..option.len().min(32)]);
                return replies.error(&format!("ERR syntax error in HELLO option '{option}'"));
            }
        }
    }
    replies.version3 = version3;
    session.name = name.unwrap_or_else(|| std::mem::take(&mut session.name));
    replies.map(7);
    for (key, value) in [("server", "aquifer"), ("version", env!("CARGO_PKG_VERSION"))] {
        replies.bulk(key);
        replies.bulk(value);
    }
    replies.bulk("proto");
    replies.integer(if version3 { 3 } else { 2 });
    replies.bulk("id");
    replies.integer(session.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        replies.bulk(key);
        replies.bulk(value);
    }
    replies.bulk("modules");
    replies.array(0);
}

fn client(args: &Args<'_>, session: &mut Session, replies: &mut Replies) {
    let what = args[1].to_ascii_lowercase();
    match (&what[..], args.len()) {
        (b"id", 2) => replies.integer(session.id as i64),
        (b"getname", 2) => replies.bulk(&session.name),
        (b"setname", 3) if args[2].len() <= NAME_MAX => {
            session.name = args[2].to_vec();
            replies.word("OK");
        }
        (b"setname", 3) => replies.error(&format!("ERR the name is too long, at most {NAME_MAX} bytes")),
        // What library it is, and what it would rather not have; nothing here depends on it.
        (b"setinfo", 4) | (b"no-evict" | b"no-touch", 3) => replies.word("OK"),
        (b"info", 2) => {
            let name = String::from_utf8_lossy(&session.name);
            let version = if replies.version3 { 3 } else { 2 };
            replies.bulk(format!("id={} name={name} resp={version}\n", session.id));
        }
        _ => {
            let what = String::from_utf8_lossy(&what[..what.len().min(32)]);
            replies
                .error(&format!("ERR unknown subcommand or wrong number of arguments for 'client|{what}'"));
        }
    }
}

fn command(args: &Args<'_>, replies: &mut Replies) {
    let what = args.get(1).map(|what| what.to_ascii_lowercase());
    let named =
        |name: &&[u8]| COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name));
    let chosen: Vec<Option<&Command>> = match args.get(2..) {
        Some(names @ [_, ..]) => names.iter().map(named).collect(),
        _ => COMMANDS.iter().map(Some).collect(),
    };
    match what.as_deref() {
        None | Some(b"info") => {
            replies.array(chosen.len());
            chosen.iter().for_each(|command| describe(*command, replies));
        }
        Some(b"count") => replies.integer(COMMANDS.len() as i64),
        Some(b"list") => {
            replies.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| replies.bulk(command.name));
        }
        Some(b"docs") => {
            let known: Vec<&Command> = chosen.into_iter().flatten().collect();
            replies.map(known.len());
            for command in known {
                replies.bulk(command.name);
                replies.map(1);
                replies.bulk("summary");
                replies.bulk(command.summary);
            }
        }
        Some(what) => {
            let what = String::from_utf8_lossy(&what[..what.len().min(32)]);
            replies.error(&format!("ERR unknown subcommand 'command|{what}'"));
        }
    }
}

fn describe(command: Option<&Command>, replies: &mut Replies) {
    let Some(command) = command else { return replies.null() };
    let key = i64::from(command.name == "cl.throttle");
    replies.array(6);
    replies.bulk(command.name);
    replies.integer(command.arity);
    replies.array(command.flags.len());
    command.flags.iter().for_each(|flag| replies.word(flag));
    [key, key, key].into_iter().for_each(|place| replies.integer(place));
}

fn info() -> String {
    format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\naquifer_version:{}\r\nprocess_id:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    )
}
