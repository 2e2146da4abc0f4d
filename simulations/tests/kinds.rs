//! What the scenarios of other kinds than rates are for, beyond what the checkers see to.

use aquifer::protocol::queue::Class;

use aquifer_simulations::record::{Answer, Record};
use aquifer_simulations::scenario::Scenario;
use aquifer_simulations::scheme::Scheme;
use aquifer_simulations::time::{MS, Nanos, SEC};

fn run(name: &str) -> Record {
    let scenario = Scenario::named(name).unwrap_or_else(|error| panic!("{error}"));
    Scheme::Aquifer.run(&scenario, 1).unwrap_or_else(|violation| panic!("{violation}"))
}

fn of_class(record: &Record, class: Class) -> Vec<&Answer> {
    let measured = |answer: &&Answer| answer.class == class && answer.at >= record.begin;
    record.answers.iter().filter(measured).collect()
}

fn median_wait(answers: &[&Answer]) -> Nanos {
    let mut waits: Vec<Nanos> = answers.iter().map(|answer| answer.waited).collect();
    waits.sort_unstable();
    waits[waits.len() / 2]
}

#[test]
fn critical_calls_on_one_node_go_before_the_background_work_of_all_others() {
    let record = run("priorities");
    let (critical, low) = (of_class(&record, Class::Critical), of_class(&record, Class::Low));
    let (critical_wait, low_wait) = (median_wait(&critical), median_wait(&low));
    assert!(critical_wait < 300 * MS, "half of the critical calls wait {critical_wait} ns or more");
    assert!(low_wait > SEC && low_wait > 10 * critical_wait, "low ones wait {low_wait} ns");
    let admitted = |answers: &[&Answer]| answers.iter().filter(|answer| answer.admitted).count();
    assert!(admitted(&critical) * 100 >= critical.len() * 99, "nearly all critical calls are admitted");
    // The floor of the lower classes, with what the critical ones leave.
    let (low, all) = (admitted(&low), admitted(&low) + admitted(&critical));
    assert!(low * 33 >= all, "{low} of {all} are low");
}
