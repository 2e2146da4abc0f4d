//! The library of scenarios: every file is in it, is valid, and every rival can run it.

use std::path::Path;

use aquifer_simulations::rival;
use aquifer_simulations::scenario::Scenario;
use aquifer_simulations::scheme::Scheme;
use aquifer_simulations::time::{SEC, nanos};
use aquifer_simulations::workload;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
}

fn named(name: &str) -> Scenario {
    Scenario::named(name).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_library_is_the_folder() {
    let files = std::fs::read_dir(folder()).expect("the folder of scenarios");
    let paths = files.map(|file| file.expect("a file").path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        Scenario::library().collect::<Vec<_>>(),
        "list every file in scenario/library.rs, sorted"
    );
    assert!(names.len() >= 22);
}

#[test]
fn a_scenario_is_the_same_from_its_file_and_by_its_name() {
    for name in Scenario::library() {
        let file = folder().join(name).with_extension("toml");
        let loaded = Scenario::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded, named(name));
        assert!(loaded.about.ends_with(['.', '?']) && loaded.step.iter().all(|step| step.say.ends_with('.')));
    }
}

#[test]
fn all_requests_of_a_scenario_can_be_drawn_and_are_about_as_many_as_expected() {
    for name in Scenario::library() {
        let scenario = named(name);
        if scenario.is_closed_loop() {
            // They depend on the answers.
            continue;
        }
        let arrivals = workload::arrivals(&scenario, 1);
        let expected: f64 = scenario.workload.iter().map(|workload| workload.expected(&scenario)).sum();
        let part = arrivals.len() as f64 / expected;
        assert!((0.5..1.5).contains(&part), "{name}: {} of {expected} expected", arrivals.len());
        assert!(arrivals.is_sorted_by_key(|arrival| (arrival.at, arrival.node)), "{name}");
        assert!(arrivals.iter().all(|it| it.node < scenario.nodes && it.at < scenario.end()), "{name}");
        assert!(arrivals.iter().all(|it| (1..=scenario.limit().capacity()).contains(&it.units)), "{name}");
    }
}

#[test]
fn every_rival_runs_every_scenario() {
    for name in Scenario::library() {
        let mut scenario = named(name);
        (scenario.nodes, scenario.seconds, scenario.warmup) = (scenario.nodes.min(12), 3.0, 1.0);
        // What comes later comes at once.
        scenario.step.iter_mut().for_each(|step| step.at = step.at.min(2.0));
        scenario.check().unwrap_or_else(|error| panic!("{error}"));
        for scheme in
            Scheme::ALL.into_iter().filter(|scheme| *scheme != Scheme::Aquifer && scheme.suits(&scenario))
        {
            let record = rival::run(scheme, &scenario, 1);
            assert_eq!((record.begin, record.end), (SEC, nanos(4.0)), "{name}, {scheme}");
            assert!(record.answers.len() <= record.arrivals.len(), "{name}, {scheme}");
            if scheme == Scheme::Ideal {
                assert!(record.overshoot <= 0.0, "{name}: the ideal is over by {}", record.overshoot);
                let admitted = record.answers.iter().any(|answer| answer.admitted);
                assert!(admitted || record.arrivals.is_empty(), "{name}: the ideal admits nothing");
            }
        }
    }
}
