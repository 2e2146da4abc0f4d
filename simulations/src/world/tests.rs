use super::*;
use crate::checker::{Property, Waiting};
use crate::fault::{Fault, Nodes};
use crate::record::Arrival;
use crate::scenario::{LimitSpec, Step};
use crate::time::{MS, SEC};

/// Three nodes, each of which is asked for twice its part.
fn scenario() -> Scenario {
    Scenario { nodes: 3, seconds: 4.0, warmup: 1.0, limit: LimitSpec::rate(30, 6), ..Scenario::default() }
}

fn arrivals(wait: Nanos) -> Vec<Arrival> {
    let arrival = |number: u64| Arrival::new(number * 50 * MS / 3, (number % 3) as usize, 1, wait);
    (0..300).map(arrival).collect()
}

/// A run in which something was done to the world before it began.
fn run_after(harm: impl FnOnce(&mut World)) -> Result<Record, Violation> {
    let scenario = scenario();
    let mut world = World::new(&scenario, 1, arrivals(200 * MS).into());
    world.begin()?;
    harm(&mut world);
    world.run()?;
    world.check_end().map(|()| world.into_record())
}

fn violated(harm: impl FnOnce(&mut World)) -> Property {
    run_after(harm).expect_err("the checker was not asked").property
}

#[test]
fn a_run_without_harm_violates_nothing() {
    let record = run_after(|_| {}).unwrap();
    assert_eq!(record.arrivals.len(), 300);
    assert!(record.answers.len() > 280 && record.samples.len() == 251);
}

#[test]
fn every_checker_is_asked() {
    let harm = violated(|world| {
        world.checks.never_over = NeverOver::new(&LimitSpec::rate(25, 6).of(3).unwrap(), 0);
    });
    assert_eq!(harm, Property::NeverOver);
    let harm = violated(|world| {
        let mut check = Conservation::new(4);
        check.hold(3, Share(1 << 30));
        world.machines.push(Machine::new(3, &world.scenario.clocks, 1));
        world.checks.conservation = check;
    });
    assert_eq!(harm, Property::Conservation);
    let harm = violated(|world| world.checks.counters.admit(1, 1, 0));
    assert_eq!(harm, Property::Counters);
    let harm = violated(|world| {
        let ghost = Waiting { units: 1, asked: 0, deadline: 1, number: 0 };
        world.machines[1].requests.wait(1, ghost).unwrap();
    });
    assert_eq!(harm, Property::OneAnswer);
    let harm = violated(|world| world.checks.bounded = Bounded::new(3, 0));
    assert_eq!(harm, Property::Bounded);
}

#[test]
fn starvation_and_idleness_are_looked_for_in_calm_times() {
    let scenario = Scenario { seconds: 29.0, ..scenario() };
    let run = |harm: fn(&mut World)| {
        let arrival = |number: u64| Arrival::new(number * 100 * MS, 1, 6, 2 * SEC);
        let mut world = World::new(&scenario, 1, (0..300).map(arrival).collect::<Vec<_>>().into());
        world.begin()?;
        harm(&mut world);
        world.run()
    };
    assert_eq!(run(|_| {}), Ok(()));
    let idle = run(|world| world.checks.liveness = Liveness::new(3, 6, (300, SEC))).unwrap_err();
    assert_eq!(idle.property, Property::Liveness);
}

/// The reasons that the honest nodes of this scenario hold against a liar after so many seconds.
fn reasons(world: &World<'_>, liar: usize) -> Vec<String> {
    let id = node_id(world.machines[liar].party());
    (0..8).map(|node| world.machines[node].node.as_ref().unwrap().reasons(&id).join("; ")).collect()
}

fn lent_twice(scenario: &mut Scenario, seconds: f64) -> World<'_> {
    *scenario = Scenario { seconds, ..Scenario::named("lending-twice").unwrap() };
    let mut world = World::new(scenario, 1, Requests::new(scenario, 1));
    world.begin().unwrap();
    world.run().unwrap();
    world
}

#[test]
fn whoever_lends_twice_by_its_books_is_found_out_by_all_and_costs_no_more_than_until_then() {
    let mut scenario = scenario();
    let world = lent_twice(&mut scenario, 40.0);
    for (liar, reason) in [(9, "lent"), (11, "counts on more")] {
        assert!(reasons(&world, liar).iter().all(|held| held.contains(reason)), "{liar}");
    }
    // Both sides have a third of all twice, for as long as they believe in it.
    let overshoot = world.into_record().overshoot;
    assert!(overshoot < 200.0 / 3.0 * 13.0, "{overshoot}");
}

#[test]
fn whoever_hides_its_loans_is_doubted_for_a_while() {
    // Who signs no books at all, and who names one borrower, which has nothing to say against it.
    for (liar, doubted_by) in [(8, 8), (10, 7)] {
        let doubted = |seconds| {
            let held = reasons(&lent_twice(&mut scenario(), seconds), liar);
            held.iter().filter(|held| held.contains("signs no books")).count()
        };
        assert_eq!(doubted(16.0), doubted_by);
        assert_eq!(doubted(30.0), 0, "it is believed again, until it does so again");
        assert_eq!(doubted(40.0), doubted_by);
    }
}

#[test]
fn callers_of_a_killed_node_have_no_answer_and_nobody_can_ask_it() {
    let step = Step { at: 1.0, say: "One is killed.".to_owned(), fault: Fault::Crash(Nodes::One(1)) };
    let scenario = Scenario { step: vec![step], ..scenario() };
    let record = run_with(&scenario, 1, arrivals(SEC).into()).unwrap();
    let of_one = || record.answers.iter().filter(|answer| answer.node == 1);
    assert!(of_one().any(|answer| answer.at == 2 * SEC && !answer.admitted));
    assert!(of_one().all(|answer| answer.at <= 2 * SEC));
    let last = record.samples.last().unwrap();
    assert!(last.held[1].abs() < f32::EPSILON && last.in_flight > 0.3, "its share is reserved");
    assert_eq!(record.marks[0].say, "One is killed.");
}
