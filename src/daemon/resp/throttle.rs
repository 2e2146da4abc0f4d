//! `CL.THROTTLE key max_burst count period [quantity]`, with redis-cell's five integers
//! (<https://github.com/brandur/redis-cell>).

use std::time::Duration;

use super::command::Args;
use super::reply::Replies;
use crate::api::ThrottleSummary;
use crate::daemon::digits::digits;
use crate::daemon::engine::Batch;
use crate::protocol::limit::{AMOUNT_MAX, PER_MAX, Rate};
use crate::protocol::node::Throttled;

/// The longest key, in bytes.
const KEY_MAX: usize = 4 * 1024;

/// The numbers of the last command, as they were written: most clients write the same again and again.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    last: Option<([&'a [u8]; 3], Rate)>,
}

/// Decides, replies and counts.
pub fn throttle<'a>(
    args: &Args<'a>,
    known: &mut Known<'a>,
    batch: &mut Batch<'_>,
    replies: &mut Replies,
    counts: &mut ThrottleSummary,
) {
    let why = match parse(args, known) {
        Ok((key, rate, units)) => match &batch.throttle(key, rate, units) {
            Ok(throttled) => {
                counts.admitted += u64::from(throttled.allowed);
                counts.refused += u64::from(!throttled.allowed);
                return reply(rate, throttled, replies);
            }
            Err(error) => error.to_string(),
        },
        Err(why) => why,
    };
    counts.failed += 1;
    replies.error(&format!("ERR {why}"));
}

fn reply(rate: Rate, throttled: &Throttled, replies: &mut Replies) {
    replies.array(5);
    replies.integer(i64::from(!throttled.allowed));
    replies.integer(rate.burst() as i64);
    replies.integer(throttled.left.remaining as i64);
    replies.integer(throttled.retry_after.map_or(-1, seconds));
    replies.integer(seconds(throttled.left.reset_in));
}

/// Whole seconds; what is over by a millisecond counts as one more, or a caller would come too early.
fn seconds(duration: Duration) -> i64 {
    let more = duration.subsec_millis() > 0;
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1) + i64::from(more)
}

fn parse<'a>(args: &Args<'a>, known: &mut Known<'a>) -> Result<(&'a [u8], Rate, u64), String> {
    let (key, numbers, quantity) = match args[..] {
        [_, key, burst, count, period] => (key, [burst, count, period], None),
        [_, key, burst, count, period, quantity] => (key, [burst, count, period], Some(quantity)),
        _ => return Err(super::answer::wrong_count("cl.throttle")),
    };
    if key.len() > KEY_MAX {
        return Err(format!("the key has {} bytes, at most {KEY_MAX} are taken", key.len()));
    }
    let rate = match known.last {
        Some((last, rate)) if last == numbers => rate,
        _ => rate_of(numbers)?,
    };
    known.last = Some((numbers, rate));
    let units = quantity.map_or(Ok(1), |quantity| whole("quantity", quantity, 0, u64::MAX))?;
    Ok((key, rate, units))
}

fn rate_of([burst, count, period]: [&[u8]; 3]) -> Result<Rate, String> {
    let burst = whole("max_burst", burst, 0, AMOUNT_MAX - 1)? + 1;
    let count = whole("count", count, 1, AMOUNT_MAX)?;
    let period = whole("period", period, 1, PER_MAX.as_secs())?;
    Rate::new(count, Duration::from_secs(period), burst).map_err(|error| error.to_string())
}

fn whole(name: &str, text: &[u8], least: u64, most: u64) -> Result<u64, String> {
    let number = digits(text);
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let text = String::from_utf8_lossy(&text[..text.len().min(32)]);
        format!("{name} is '{text}', must be a whole number from {least} to {most}")
    })
}
