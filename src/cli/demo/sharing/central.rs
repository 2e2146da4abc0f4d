//! The yardstick: what one central limiter would have admitted of the same load.

use std::time::Duration;

use crate::cli::demo::bucket::Bucket;
use crate::protocol::limit::Rate;

/// One request as the yardstick sees it.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// When it asked.
    pub asked: Duration,
    /// When it would give up.
    pub deadline: Duration,
}

/// How many of `offers` one central limiter with a first-come, first-served queue admits before `end`.
///
/// This limiter is ideal: it knows everything at once, its answers take no time, and a request that would be
/// admitted only after its deadline takes nothing.
pub fn admitted(limit: &Rate, offers: &[Offer], end: Duration) -> usize {
    let mut offers = offers.to_vec();
    offers.sort_by_key(|offer| (offer.asked, offer.deadline));
    let mut bucket = Bucket::new(limit);
    let mut admitted = 0;
    for offer in offers {
        let at = bucket.opens(offer.asked);
        if at <= offer.deadline && at < end && bucket.take(1, at) {
            admitted += 1;
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(count: u64, every_ms: u64, patience_ms: u64) -> Vec<Offer> {
        let at = |step: u64| Duration::from_millis(step * every_ms);
        (0..count)
            .map(|step| Offer { asked: at(step), deadline: at(step) + Duration::from_millis(patience_ms) })
            .collect()
    }

    fn limit() -> Rate {
        Rate::new(10, Duration::from_secs(1), 5).unwrap()
    }

    #[test]
    fn a_load_below_the_limit_is_admitted_whole() {
        assert_eq!(admitted(&limit(), &offers(40, 200, 0), Duration::from_secs(100)), 40);
    }

    #[test]
    fn a_load_beyond_the_limit_gets_the_burst_and_the_rate() {
        // 100 a second for 10 s; the last admission before 10 s is at 9.9 s.
        assert_eq!(admitted(&limit(), &offers(1_000, 10, 1_000), Duration::from_secs(10)), 5 + 99);
    }

    #[test]
    fn a_queue_carries_a_burst_over_the_pause_after_it() {
        let burst = offers(20, 0, 1_000);
        assert_eq!(admitted(&limit(), &burst, Duration::from_secs(10)), 5 + 10);
        assert_eq!(admitted(&limit(), &offers(20, 0, 0), Duration::from_secs(10)), 5);
    }

    #[test]
    fn nothing_counts_after_the_end_and_the_order_of_the_list_does_not_matter() {
        let mut late = offers(20, 0, 10_000);
        assert_eq!(admitted(&limit(), &late, Duration::from_millis(500)), 5 + 4);
        late.extend(offers(5, 100, 0));
        let ordered = admitted(&limit(), &late, Duration::from_secs(5));
        late.reverse();
        assert_eq!(admitted(&limit(), &late, Duration::from_secs(5)), ordered);
    }
}
