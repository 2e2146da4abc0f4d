use proptest::prelude::*;

use super::*;

const AGEING: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn entry(class: Class, agent: u32, cost: u64) -> Entry {
    Entry { class, agent: AgentIndex(agent), weight: 1_000, cost, since: Instant::ZERO }
}

fn nobody(_: AgentIndex) -> bool {
    false
}

/// Serves the head; returns its ticket.
fn serve(queue: &mut Queue) -> u64 {
    let head = queue.head(nobody).unwrap();
    queue.serve(head).unwrap();
    head.0
}

#[test]
fn classes_have_names_in_order() {
    let names = Class::ALL.map(|class| class.to_string());
    assert_eq!(names, ["critical", "high", "normal", "low"]);
    assert!(Class::ALL.is_sorted() && Class::ALL.map(Class::index) == [0, 1, 2, 3]);
}

#[test]
fn the_highest_class_is_next_and_each_is_answered_once() {
    let mut queue = Queue::new(AGEING);
    for (ticket, class) in [(1, Class::Low), (2, Class::Normal), (3, Class::Critical), (4, Class::High)] {
        queue.push(Ticket(ticket), entry(class, 0, 10));
    }
    assert_eq!(queue.waiting(), [1; 4]);
    assert_eq!((queue.position(Ticket(1)), queue.position(Ticket(3))), (Some(3), Some(0)));
    assert_eq!([(); 4].map(|()| serve(&mut queue)), [3, 4, 2, 1]);
    assert_eq!(
        (queue.serve(Ticket(1)), queue.remove(Ticket(2)), queue.position(Ticket(1))),
        (None, None, None)
    );
    assert_eq!((queue.len(), queue.waiting(), queue.next_ageing()), (0, [0; 4], None));
}

#[test]
fn what_is_served_while_others_wait_counts_until_nobody_does() {
    let mut queue = Queue::new(AGEING);
    let patience = Duration::from_secs(1);
    let push = |queue: &mut Queue, ticket, since| {
        queue.push(Ticket(ticket), Entry { since: at(since), ..entry(Class::Normal, 0, 1) });
    };
    (1..=3).for_each(|ticket| push(&mut queue, ticket, 5));
    serve(&mut queue);
    push(&mut queue, 4, 6);
    serve(&mut queue);
    assert_eq!(queue.served_while_waiting(patience, at(5)), 0, "it has not lasted");
    assert_eq!(queue.served_while_waiting(patience, at(6)), 2);
    queue.remove(Ticket(3)).unwrap();
    serve(&mut queue);
    assert_eq!(queue.served_while_waiting(patience, at(60)), 0, "it was empty");
    push(&mut queue, 5, 60);
    assert_eq!(queue.served_while_waiting(patience, at(70)), 0);
}

#[test]
fn a_flood_of_critical_leaves_the_floor_to_each_class_below() {
    let mut queue = Queue::new(AGEING);
    let costs = [7, 20, 3, 31];
    let mut served = [0; 4];
    for ticket in 0..20_000 {
        // Always two of each class: nobody is served because nobody else is there.
        Class::ALL.iter().for_each(|class| {
            let ticket = Ticket(ticket * 4 + class.index() as u64);
            queue.push(ticket, entry(*class, 0, costs[class.index()]));
        });
        if ticket > 0 {
            let head = queue.head(nobody).unwrap();
            let entry = queue.serve(head).unwrap();
            served[entry.class.index()] += entry.cost;
        }
    }
    for class in 1..4 {
        let in_turn = served[0];
        assert!(served[class] * 32 + costs[class] * 32 >= in_turn, "{served:?}");
        assert!(served[class] * 32 <= served[..class].iter().sum::<u64>() + 32 * costs[class], "{served:?}");
    }
}

#[test]
fn critical_goes_first_until_the_floor_is_due() {
    let mut queue = Queue::new(AGEING);
    queue.push(Ticket(0), entry(Class::Low, 0, 10));
    for round in 1..=32 {
        assert!(queue.may_pass(Class::Critical) && !queue.may_pass(Class::Low), "round {round}");
        queue.passed(Class::Critical, AgentIndex(1), 1_000, 10);
    }
    assert!(!queue.may_pass(Class::Critical), "the floor is due");
    queue.push(Ticket(1), entry(Class::Critical, 1, 10));
    assert_eq!(queue.head(nobody), Some(Ticket(0)));
    queue.push(Ticket(2), entry(Class::Low, 0, 10));
    assert_eq!([(); 3].map(|()| serve(&mut queue)), [0, 1, 2]);
}

#[test]
fn what_a_class_earned_goes_with_its_last_waiter() {
    let mut queue = Queue::new(AGEING);
    queue.push(Ticket(0), entry(Class::Low, 0, 10));
    queue.passed(Class::High, AgentIndex(1), 1_000, 1_000);
    assert!(!queue.may_pass(Class::High));
    queue.remove(Ticket(0));
    queue.push(Ticket(1), entry(Class::Low, 0, 10));
    assert!(queue.may_pass(Class::High));
}

#[test]
fn a_class_whose_agents_are_over_does_not_hoard() {
    let mut queue = Queue::new(AGEING);
    (0..100).for_each(|ticket| queue.push(Ticket(ticket), entry(Class::Low, 0, 10)));
    (0..1_000).for_each(|_| queue.passed(Class::Critical, AgentIndex(1), 1_000, 10));
    queue.push(Ticket(100), entry(Class::Critical, 1, 10));
    assert_eq!([serve(&mut queue), serve(&mut queue)], [0, 100]);
}

#[test]
fn who_is_over_comes_after_all_others_but_is_served() {
    let mut queue = Queue::new(AGEING);
    queue.push(Ticket(0), entry(Class::Critical, 0, 10));
    queue.push(Ticket(1), entry(Class::Low, 1, 10));
    let over = |agent| agent == AgentIndex(0);
    assert_eq!(queue.head(over), Some(Ticket(1)));
    queue.remove(Ticket(1));
    assert_eq!(queue.head(over), Some(Ticket(0)));
}

#[test]
fn waiting_moves_up_in_order_of_arrival_and_never_to_critical() {
    let mut queue = Queue::new(AGEING);
    queue.push(Ticket(0), entry(Class::Low, 0, 10));
    queue.push(Ticket(1), Entry { since: at(5), ..entry(Class::Normal, 0, 10) });
    queue.push(Ticket(2), Entry { since: at(8), ..entry(Class::Low, 0, 10) });
    let order = |queue: &Queue| queue.iter().map(|(ticket, _)| ticket.0).collect::<Vec<_>>();
    assert_eq!((order(&queue), queue.next_ageing()), (vec![1, 0, 2], Some(at(10))));
    queue.age(at(9));
    assert_eq!(order(&queue), [1, 0, 2]);
    queue.age(at(10));
    assert_eq!(order(&queue), [0, 1, 2], "the same agent's, in the same class, as they came");
    queue.age(at(15));
    assert_eq!((order(&queue), queue.next_ageing()), (vec![1, 0, 2], Some(at(18))));
    assert_eq!(queue.waiting(), [0, 0, 1, 2], "counted as asked");
    queue.age(at(1_000));
    assert_eq!((order(&queue), queue.next_ageing()), (vec![0, 1, 2], None));
    queue.push(Ticket(3), entry(Class::Critical, 0, 10));
    assert_eq!((queue.head(nobody), queue.may_pass(Class::Critical)), (Some(Ticket(3)), false));
}

/// The same rules without an index: every question is a walk over everybody.
#[derive(Default)]
struct Naive {
    waiters: Vec<(Ticket, Entry, Class, Instant)>,
    tags: [Vec<u128>; 4],
    times: [u128; 4],
    credits: [u128; 4],
    largest: [u64; 4],
}

impl Naive {
    fn tag(&self, class: Class, agent: AgentIndex) -> u128 {
        self.tags[class.index()].get(agent.0 as usize).copied().unwrap_or(0)
    }

    fn set_tag(&mut self, class: Class, agent: AgentIndex, tag: u128) {
        let (tags, place) = (&mut self.tags[class.index()], agent.0 as usize);
        tags.resize(tags.len().max(place + 1), 0);
        tags[place] = tag;
    }

    fn enter(&mut self, ticket: Ticket, entry: Entry, class: Class, since: Instant) {
        let is_idle = !self.waiters.iter().any(|waiter| (waiter.2, waiter.1.agent) == (class, entry.agent));
        if is_idle {
            let tag = self.tag(class, entry.agent).max(self.times[class.index()]);
            self.set_tag(class, entry.agent, tag);
        }
        self.largest[class.index()] = self.largest[class.index()].max(entry.cost);
        self.waiters.push((ticket, entry, class, since));
    }

    fn head(&self, over: impl Fn(AgentIndex) -> bool) -> Option<Ticket> {
        let of_class = |class: Class| {
            let waiters = self.waiters.iter().filter(|waiter| waiter.2 == class && !over(waiter.1.agent));
            waiters.min_by_key(|waiter| (self.tag(class, waiter.1.agent), waiter.0))
        };
        let heads: Vec<_> = Class::ALL.into_iter().filter_map(of_class).collect();
        let due = heads
            .iter()
            .find(|head| self.credits[head.2.index()] >= u128::from(head.1.cost) * u128::from(FLOOR));
        due.or(heads.first()).map(|head| head.0)
    }

    fn charge(&mut self, class: Class, entry: Entry) {
        let place = class.index();
        let start = self.tag(class, entry.agent).max(self.times[place]);
        self.times[place] = start;
        self.set_tag(class, entry.agent, start + span(entry.cost, entry.weight));
        for below in Class::ALL.into_iter().filter(|below| *below > class) {
            let is_empty = !self.waiters.iter().any(|waiter| waiter.2 == below);
            let earned = &mut self.credits[below.index()];
            if !is_empty && *earned < u128::from(self.largest[below.index()]) * u128::from(FLOOR) {
                *earned += u128::from(entry.cost);
            }
        }
    }

    fn leave(&mut self, ticket: Ticket) -> (Entry, Class, Instant) {
        let place = self.waiters.iter().position(|waiter| waiter.0 == ticket).unwrap();
        let (_, entry, class, since) = self.waiters.remove(place);
        (entry, class, since)
    }

    fn forfeit(&mut self, class: Class) {
        if !self.waiters.iter().any(|waiter| waiter.2 == class) {
            (self.credits[class.index()], self.largest[class.index()]) = (0, 0);
        }
    }

    fn serve(&mut self, ticket: Ticket) {
        let (entry, class, _) = self.leave(ticket);
        let paid = u128::from(entry.cost) * u128::from(FLOOR);
        self.credits[class.index()] = self.credits[class.index()].saturating_sub(paid);
        self.forfeit(class);
        self.charge(class, entry);
    }

    fn remove(&mut self, ticket: Ticket) {
        let (_, class, _) = self.leave(ticket);
        self.forfeit(class);
    }

    fn age(&mut self, now: Instant) {
        loop {
            let moves = self.waiters.iter().filter(|waiter| waiter.2 >= Class::Normal);
            let due = moves.map(|waiter| (waiter.3 + AGEING, waiter.0)).min().filter(|(at, _)| *at <= now);
            let Some((since, ticket)) = due else { return };
            let (entry, class, _) = self.leave(ticket);
            self.forfeit(class);
            self.enter(ticket, entry, Class::ALL[class.index() - 1], since);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { class: usize, agent: u32, weight: u32, cost: u64 },
    Pass { class: usize, agent: u32, weight: u32, cost: u64 },
    Serve { over: u32 },
    Remove { place: usize },
    Sleep { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let request = || (0..4_usize, 0..6_u32, 1..5_000_u32, 0..1_000_u64);
    prop_oneof![
        4 => request().prop_map(|(class, agent, weight, cost)| Step::Push { class, agent, weight, cost }),
        2 => request().prop_map(|(class, agent, weight, cost)| Step::Pass { class, agent, weight, cost }),
        3 => (0..12_u32).prop_map(|over| Step::Serve { over }),
        1 => any::<usize>().prop_map(|place| Step::Remove { place }),
        1 => (0..9_000_u64).prop_map(|millis| Step::Sleep { millis }),
    ]
}

/// Takes both through the same step and compares what can be seen; returns the ticket that left.
fn take(
    step: &Step,
    next: &mut u64,
    now: &mut Instant,
    queue: &mut Queue,
    naive: &mut Naive,
) -> Option<Ticket> {
    let mut left = None;
    match *step {
        Step::Push { class, agent, weight, cost } => {
            let class = Class::ALL[class];
            let entry = Entry { class, agent: AgentIndex(agent), weight, cost, since: *now };
            queue.push(Ticket(*next), entry);
            naive.enter(Ticket(*next), Entry { cost: cost.max(1), ..entry }, class, *now);
            *next += 1;
        }
        Step::Pass { class, agent, weight, cost } => {
            let class = Class::ALL[class];
            if queue.may_pass(class) {
                assert!(naive.waiters.iter().all(|waiter| waiter.2 > class), "passed a class that waits");
                queue.passed(class, AgentIndex(agent), weight, cost);
                let entry = Entry { class, agent: AgentIndex(agent), weight, cost: cost.max(1), since: *now };
                naive.charge(class, entry);
            }
        }
        Step::Serve { over } => {
            let over = |agent: AgentIndex| agent.0 == over;
            let head = queue.head(over);
            assert_eq!(head, naive.head(over).or_else(|| naive.head(nobody)));
            if let Some(head) = head {
                queue.serve(head).unwrap();
                naive.serve(head);
                left = Some(head);
            }
        }
        Step::Remove { place } if !naive.waiters.is_empty() => {
            let ticket = naive.waiters[place % naive.waiters.len()].0;
            queue.remove(ticket).unwrap();
            naive.remove(ticket);
            left = Some(ticket);
        }
        Step::Remove { .. } => {}
        Step::Sleep { millis } => {
            *now = *now + Duration::from_millis(millis);
            queue.age(*now);
            naive.age(*now);
        }
    }
    assert_eq!(queue.len(), naive.waiters.len());
    left
}

#[test]
fn ten_thousand_wait_as_in_the_naive_model() {
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut queue, mut naive) = (Queue::new(AGEING), Naive::default());
    let (mut next, mut now) = (0, Instant::ZERO);
    for _ in 0..10_000 {
        let (class, agent) = (random(4) as usize, random(500) as u32);
        let step = Step::Push { class, agent, weight: 1 + random(5_000) as u32, cost: random(1_000_000) };
        take(&step, &mut next, &mut now, &mut queue, &mut naive);
    }
    assert_eq!(queue.len(), 10_000);
    let mut gone = BTreeSet::new();
    for _ in 0..4_000 {
        let step = match random(8) {
            0 => Step::Remove { place: random(10_000) as usize },
            1 => Step::Sleep { millis: random(30) },
            _ => Step::Serve { over: random(1_000) as u32 },
        };
        let left = take(&step, &mut next, &mut now, &mut queue, &mut naive);
        assert!(left.is_none_or(|ticket| gone.insert(ticket)), "answered twice");
    }
    queue.iter().for_each(|(ticket, _)| assert!(gone.insert(ticket), "answered, and still waits"));
    assert_eq!(gone.len(), 10_000);
}

proptest! {
    #[test]
    fn everybody_is_answered_once_and_as_in_the_naive_model(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let (mut queue, mut naive) = (Queue::new(AGEING), Naive::default());
        let (mut next, mut now) = (0, Instant::ZERO);
        let mut gone = BTreeSet::new();
        for step in &steps {
            if let Some(ticket) = take(step, &mut next, &mut now, &mut queue, &mut naive) {
                prop_assert!(gone.insert(ticket));
            }
        }
        while let Some(head) = queue.head(nobody) {
            prop_assert!(queue.serve(head).is_some() && gone.insert(head));
        }
        prop_assert_eq!((gone.len() as u64, queue.waiting()), (next, [0; 4]));
    }

    /// The floor is a floor whatever the costs: the lower class is served its part of what goes before it in
    /// its turn.
    #[test]
    fn no_flood_takes_the_floor(
        floods in proptest::collection::vec(1_u64..1_000, 200),
        costs in proptest::collection::vec(1_u64..200, 1..20),
    ) {
        let mut queue = Queue::new(AGEING);
        let (mut above, mut below) = (0, 0);
        let mut next = 0;
        let mut push = |queue: &mut Queue, class, cost| {
            next += 1;
            queue.push(Ticket(next), entry(class, 0, cost));
        };
        let mut low = costs.iter().cycle();
        for cost in &floods {
            push(&mut queue, Class::Critical, *cost);
            loop {
                while queue.waiting()[3] < 2 {
                    push(&mut queue, Class::Low, *low.next().unwrap());
                }
                let head = queue.head(nobody).unwrap();
                let entry = queue.serve(head).unwrap();
                if entry.class == Class::Critical {
                    above += entry.cost;
                    break;
                }
                below += entry.cost;
                prop_assert!(below * 32 <= above, "out of turn, but not earned");
            }
        }
        let (largest, last) = (costs.iter().max().unwrap(), floods.last().unwrap());
        prop_assert!((below + largest) * 32 + last >= above);
    }
}
