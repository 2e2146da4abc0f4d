//! `aquifer ledger`, `aquifer vouch` and `aquifer forget`: where base shares come from, giving them and taking them back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::Listing;
use super::output::{json as show, percent, plain, print};
use crate::api::{API_VERSION, ForgetRequest, GiftListing, LedgerListing, VouchRequest};
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
#[command(after_help = VOUCH_HELP)]
pub struct Vouch {
    /// The peer: its name, or how its id begins
    peer: String,
    /// What part of the base shares it should have beside others of weight 1: 0.01 to 100
    #[arg(long)]
    weight: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const VOUCH_HELP: &str = "\
Example:
  aquifer vouch ci-runner-2 --weight 3
      base shares drift to three times as much for it as for each of the others

A node gives of its own base share alone, whatever weight it writes. `aquifer forget` takes it back, and the weight with it.
Where auto_vouch is below 1 nodes heed the weights that they wrote themselves.";

pub async fn vouch(client: Client, args: Vouch) -> Result<ExitCode, ClientError> {
    let ask = VouchRequest { peer: args.peer, weight: args.weight };
    client.vouch(&ask).await?;
    if args.json {
        return Ok(print(&show(&json!({ "version": API_VERSION, "peer": ask.peer, "vouched": true }))));
    }
    Ok(print(&format!("vouched for {}; `aquifer ledger` shows what it has\n", plain(&ask.peer))))
}

#[derive(Debug, clap::Args)]
#[command(after_help = FORGET_HELP)]
pub struct Forget {
    /// The member: its name, or how its id begins
    peer: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const FORGET_HELP: &str = "\
Example:
  aquifer forget ci-runner-2
      a member that is connected gives back what this node gave it; from one that is not, it is taken

Under policy strict and majority this is your word that a member which is not connected is gone: if it runs on where
nobody hears it, it and this node both use that share. A node takes back only what it gave itself.";

pub async fn forget(client: Client, args: Forget) -> Result<ExitCode, ClientError> {
    let ask = ForgetRequest { peer: args.peer };
    client.forget(&ask).await?;
    if args.json {
        return Ok(print(&show(&json!({ "version": API_VERSION, "peer": ask.peer, "forgotten": true }))));
    }
    Ok(print(&format!("{} is forgotten; `aquifer ledger` shows what came back\n", plain(&ask.peer))))
}

pub async fn ledger(client: Client, args: &Listing) -> Result<ExitCode, ClientError> {
    let answer = client.ledger().await?;
    Ok(print(&if args.json { show(&answer) } else { tree(&answer) }))
}

/// Everybody below whoever vouched for it first on the way from the founders, with all that it was given by that one.
fn tree(ledger: &LedgerListing) -> String {
    let mut subjects: BTreeMap<&str, Vec<&GiftListing>> = BTreeMap::new();
    for gift in &ledger.gifts {
        subjects.entry(&gift.voucher).or_default().push(gift);
    }
    // Breadth first: who is nearer to a founder counts as the voucher.
    let founders = ledger.members.iter().filter(|member| member.founded > 0.0);
    let mut level: Vec<&str> = founders.map(|member| member.id.as_str()).collect();
    let mut seen: BTreeSet<&str> = level.iter().copied().collect();
    let mut below: BTreeMap<&str, Vec<&GiftListing>> = BTreeMap::new();
    let roots = level.clone();
    while !level.is_empty() {
        let mut next = Vec::new();
        for voucher in level {
            for gift in subjects.get(voucher).into_iter().flatten() {
                if seen.insert(&gift.subject) {
                    below.entry(voucher).or_default().push(gift);
                    next.push(gift.subject.as_str());
                }
            }
        }
        level = next;
    }
    let mut lines = String::new();
    // Depth first, without recursion: a chain of members may be long.
    let mut open: Vec<(&str, Option<&GiftListing>, usize)> =
        roots.iter().rev().map(|root| (*root, None, 0)).collect();
    while let Some((id, gift, depth)) = open.pop() {
        let member = ledger.members.iter().find(|member| member.id == id);
        let (name, base) = member.map_or((id, 0.0), |member| (member.name.as_str(), member.base_share));
        let short: String = id.chars().take(8).collect();
        let _ =
            write!(lines, "{}{} ({short})  base {}", "  ".repeat(depth.min(32)), plain(name), percent(base));
        if let Some(gift) = gift {
            let _ = write!(lines, "  given {}", percent(gift.given));
            if let Some(weight) = gift.weight {
                let _ = write!(lines, "  weight {weight}");
            }
            for (what, share) in [("returned", gift.returned), ("reclaimed", gift.reclaimed)] {
                if share > 0.0 {
                    let _ = write!(lines, "  {what} {}", percent(share));
                }
            }
        } else if let Some(member) = member {
            let _ = write!(lines, "  founded {}", percent(member.founded));
        }
        lines.push('\n');
        let children = below.get(id).into_iter().flatten().rev();
        open.extend(children.map(|gift| (gift.subject.as_str(), Some(*gift), depth + 1)));
    }
    if lines.is_empty() { "Nobody is known to have founded a swarm.\n".to_owned() } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MemberListing;

    #[test]
    fn everybody_is_shown_once_below_whoever_is_nearest_to_a_founder() {
        let member = |id: &str, founded| MemberListing {
            id: id.to_owned(),
            name: id.to_owned(),
            founded,
            base_share: 0.25,
        };
        let gift = |voucher: &str, subject: &str| GiftListing {
            voucher: voucher.to_owned(),
            subject: subject.to_owned(),
            given: 0.5,
            returned: 0.0,
            reclaimed: 0.0,
            weight: (subject == "b").then_some(2.5),
        };
        let ledger = LedgerListing {
            version: API_VERSION,
            id: None,
            members: vec![member("a", 1.0), member("b", 0.0), member("c", 0.0)],
            gifts: vec![gift("a", "b"), gift("a", "c"), gift("b", "c"), gift("c", "a"), gift("c", "b")],
        };
        let tree = tree(&ledger);
        let depth = |line: &str| line.len() - line.trim_start().len();
        assert_eq!(tree.lines().map(depth).collect::<Vec<_>>(), [0, 2, 2], "{tree}");
        assert!(tree.contains("given 50.0 %  weight 2.5\n"), "{tree}");
    }
}
