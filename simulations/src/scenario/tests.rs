use std::time::Duration;

use aquifer::protocol::limit::Rate;

use super::*;

fn read(text: &str) -> Result<Scenario, ScenarioError> {
    let head = "about = \"x\"\nnodes = 4\nseconds = 10\n";
    let limit = "[limit]\nper_second = 100\nburst = 50\n[[workload]]\n";
    let text =
        if text.contains("[limit]") { format!("{head}{text}") } else { format!("{head}{limit}{text}") };
    Scenario::parse("x", "x.toml", &text, |_| Ok("0,0,0,1\n1,2".to_owned()))
}

#[track_caller]
fn refused(text: &str) -> String {
    read(text).expect_err("it is wrong").to_string()
}

#[test]
fn the_least_that_a_scenario_needs() {
    let scenario = read("").unwrap();
    assert_eq!((scenario.begin(), scenario.end()), (nanos(5.0), nanos(15.0)));
    assert_eq!(scenario.workload, vec![Workload::default()]);
    assert_eq!(scenario.limit(), Rate::new(100, Duration::from_secs(1), 50).unwrap().into());
    assert_eq!(scenario.weight(3), 1);
    let weighted = Scenario { weights: vec![1, 2], ..scenario };
    assert_eq!((weighted.weight(2), weighted.weight(3)), (1, 2));
    assert_eq!(weighted.with_nodes(1).unwrap().nodes, 1);
    Scenario::default().check().unwrap();
}

#[test]
fn a_limit_for_each_grows_with_the_swarm() {
    let each = read("[limit]\nper_second = 100\nburst = 50\neach = true\n[[workload]]").unwrap();
    assert_eq!(each.limit(), Rate::new(400, Duration::from_secs(1), 200).unwrap().into());
    assert_eq!(each.with_nodes(10).unwrap().limit().amount(), 1_000);
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_field() {
    assert_eq!(refused("load = -1"), "x.toml: workload[0].load: it is -1, must be from 0 to 1000000");
    assert!(refused("lod = 1").contains("unknown field `lod`"));
    assert!(refused("cost = 51").contains("workload[0].cost: it is 51, must be from 1 to the burst, 50"));
    assert!(refused("cost = { median = 5, sigma = 1, max = 1.5 }").contains("cost.max: it is 1.5"));
    assert!(
        refused("nodes = { one = 4 }").contains("workload[0].nodes: one = 4 names a node that there is not")
    );
    assert!(refused("nodes = { part = [2, 2] }").contains("part = [2, 2]"));
    assert!(refused("kind = { on_off = { on = 0, off = 1 } }").contains("on_off.on: it is 0"));
    assert!(refused("kind = { on_of = { on = 1, off = 1 } }").contains("on_of"));
    assert!(refused("from = 5\nuntil = 5").contains("workload[0].until: it is 5, must be after"));
    assert!(refused("load = 1000000\nfrom = -5").contains("requests"), "too many to draw");
    assert!(refused("kind = { trace = \"t.csv\" }").contains("t.csv, line 2: has 2 fields"));
    assert!(refused("[[step]]\nat = 11\nsay = \"late\"\ndo = \"heal\"").contains("step[0].at: it is 11"));
    let step = "[[step]]\nat = 1\nsay = \"x\"\ndo = { crash = { one = 9 } }";
    assert!(refused(step).contains("step[0].do: one = 9 names a node"));
    let late = "[[step]]\nat = 2\nsay = \"a\"\ndo = \"heal\"\n[[step]]\nat = 1\nsay = \"b\"\ndo = \"heal\"";
    assert!(refused(late).contains("step[1].at: it is 1, must be in order"));
    let huge = "[limit]\nper_second = 900000000000\nburst = 1\neach = true\n[[workload]]\nload = 0";
    assert!(refused(huge).contains("limit: amount is 3600000000000"));
}

#[test]
fn numbers_that_are_out_of_bounds_are_refused_wherever_they_come_from() {
    let with = |change: fn(&mut Scenario)| {
        let mut scenario = Scenario::default();
        change(&mut scenario);
        scenario.check().expect_err("it is out of bounds").to_string()
    };
    assert!(with(|scenario| scenario.nodes = 0).contains("nodes: it is 0, must be from 1 to 10000"));
    assert!(with(|scenario| scenario.nodes = 10_001).contains("nodes: it is 10001"));
    assert!(with(|scenario| scenario.seconds = 0.0).contains("seconds: it is 0"));
    assert!(with(|scenario| scenario.warmup = f64::NAN).contains("warmup: it is NaN"));
    assert!(with(|scenario| scenario.weights = vec![1, 0]).contains("weights[1]: it is 0"));
    assert!(with(|scenario| scenario.workload.clear()).contains("workload: it is empty"));
}

#[test]
fn an_unknown_name_is_answered_with_a_similar_one() {
    let error = Scenario::named("stedy").unwrap_err().to_string();
    assert_eq!(error, "there is no scenario \"stedy\", did you mean \"steady\"?; `list` shows all");
    assert!(Scenario::named("qqq").unwrap_err().to_string().contains("no scenario \"qqq\"; `list`"));
}

#[test]
fn files_are_read_with_the_traces_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let text = "about = \"x\"\nnodes = 2\nseconds = 1\n[limit]\nper_second = 1\nburst = 1\n[[workload]]\n\
                kind = { trace = \"mine.csv\" }";
    std::fs::write(&file, text).unwrap();
    let missing = Scenario::load(&file).unwrap_err().to_string();
    assert!(missing.contains("mine.csv"), "{missing}");
    std::fs::write(folder.path().join("mine.csv"), "0.5,1,0,1").unwrap();
    let scenario = Scenario::load(&file).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.workload[0].rows.len()), ("mine", 1));
}
