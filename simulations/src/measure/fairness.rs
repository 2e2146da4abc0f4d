//! How the limit should be divided, and how far from it a division is.

/// Weighted max-min: everybody gets what it demands, up to a common level per weight at which all together take
/// `capacity` (Bertsekas and Gallager, Data Networks, 6.5.2). In the unit of the demands; a weight of 0 counts as 1.
pub fn max_min(capacity: f64, demands: &[f64], weights: &[u32]) -> Vec<f64> {
    let weight = |i: usize| f64::from(weights.get(i).copied().unwrap_or(1).max(1));
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by(|a, b| (demands[*a] / weight(*a)).total_cmp(&(demands[*b] / weight(*b))));
    let mut heavy: f64 = (0..demands.len()).map(weight).sum();
    let mut left = capacity;
    let mut shares = vec![0.0; demands.len()];
    for i in order {
        shares[i] = demands[i].min(left * weight(i) / heavy).max(0.0);
        left -= shares[i];
        heavy -= weight(i);
    }
    shares
}

/// The part of the `optimum` that went elsewhere or nowhere: half the sum of differences over its sum. 0 is the
/// optimum itself; nothing if the optimum is to give nobody anything.
pub fn distance(given: &[f64], optimum: &[f64]) -> Option<f64> {
    let whole: f64 = optimum.iter().sum();
    let off: f64 = given.iter().zip(optimum).map(|(x, best)| (x - best).abs()).sum();
    (whole > 0.0).then(|| off / (2.0 * whole))
}

/// Jain's index: 1 if all are equal, 1/n if one has everything (Jain, Chiu and Hawe 1984); nothing if nobody has
/// anything.
pub fn jain(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    (squares > 0.0).then(|| sum * sum / (values.len() as f64 * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-9), "{a:?} is not {b:?}");
    }

    #[test]
    fn the_water_fills_up_to_a_common_level() {
        close(&max_min(10.0, &[], &[]), &[]);
        close(&max_min(10.0, &[4.0], &[1]), &[4.0]);
        close(&max_min(10.0, &[40.0], &[1]), &[10.0]);
        // 2 is below the level; the other two part 8.
        close(&max_min(10.0, &[2.0, 9.0, 5.0], &[1, 1, 1]), &[2.0, 4.0, 4.0]);
        close(&max_min(12.0, &[99.0, 99.0, 99.0], &[3, 2, 1]), &[6.0, 4.0, 2.0]);
        // The second wants only 1 of its 4; what it leaves goes 3 to 1.
        close(&max_min(12.0, &[99.0, 1.0, 99.0], &[3, 2, 1]), &[8.25, 1.0, 2.75]);
        close(&max_min(100.0, &[1.0, 0.0, 2.0], &[1, 1, 1]), &[1.0, 0.0, 2.0]);
    }

    #[test]
    fn distance_is_the_part_that_went_elsewhere() {
        assert_eq!(distance(&[], &[]), None);
        assert_eq!(distance(&[1.0], &[0.0]), None);
        assert_eq!(distance(&[5.0, 5.0], &[5.0, 5.0]), Some(0.0));
        // Two of ten went to the wrong one: (2 + 2) / 20.
        assert_eq!(distance(&[7.0, 3.0], &[5.0, 5.0]), Some(0.2));
    }

    #[test]
    fn jain_counts_how_many_are_served() {
        assert_eq!(jain(&[]), None);
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[7.0]), Some(1.0));
        assert_eq!(jain(&[2.0, 2.0, 2.0, 2.0]), Some(1.0));
        assert_eq!(jain(&[8.0, 0.0, 0.0, 0.0]), Some(0.25));
        // (1 + 3)² / (2 × (1 + 9))
        assert_eq!(jain(&[1.0, 3.0]), Some(0.8));
    }
}
