//! Points in memory and packed: columns, their bytes on disk, and thinning for reads.
//!
//! A packed chunk is one version byte, the count (LEB128), steps and times as zigzag deltas
//! (LEB128), then the bits of the values, little-endian. Steps and times mostly count on, so a point
//! costs about 11 bytes in place of 24. Every bit pattern of a value survives, NaN payloads included.

/// Points of a full chunk.
pub const CHUNK_POINTS: u64 = 4096;
/// Points of a small chunk: the open end of a series is rewritten with each append until it holds so
/// many (3 KiB), then left alone until a full chunk's worth is there. A rewrite of up to a full chunk
/// on every append would write 25 times as much.
pub(crate) const SMALL_POINTS: u64 = 256;

const VERSION: u8 = 1;

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Step, as the script gave it.
    pub step: i64,
    /// When it was logged, by the clock of who logged it; kept as it is, even where it jumps back.
    pub time_us: u64,
    /// Value; NaN and infinities are values.
    pub value: f64,
}

/// Why packed bytes cannot be read: they are not ours, or the disk changed them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of points is damaged: {0}")]
pub(crate) struct DamagedChunk(&'static str);

/// Packs points, in their order.
pub(crate) fn pack(points: &[Point]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(11 + points.len() * 13);
    packed.push(VERSION);
    push_varint(&mut packed, points.len() as u64);
    let mut previous = 0_i64;
    for point in points {
        push_varint(&mut packed, zigzag(point.step.wrapping_sub(previous)));
        previous = point.step;
    }
    let mut previous = 0_i64;
    for point in points {
        let time = point.time_us as i64;
        push_varint(&mut packed, zigzag(time.wrapping_sub(previous)));
        previous = time;
    }
    for point in points {
        packed.extend_from_slice(&point.value.to_bits().to_le_bytes());
    }
    packed
}

/// Appends the points of `packed` to `points`.
pub(crate) fn unpack(packed: &[u8], points: &mut Vec<Point>) -> Result<(), DamagedChunk> {
    let (&version, mut rest) = packed.split_first().ok_or(DamagedChunk("it is empty"))?;
    if version != VERSION {
        return Err(DamagedChunk("its version is not known"));
    }
    let count = take_varint(&mut rest)?;
    // Each point has at least ten bytes: a count that says more is not believed, nor allocated for.
    if count > rest.len() as u64 / 10 {
        return Err(DamagedChunk("it is shorter than its count"));
    }
    let (count, start) = (count as usize, points.len());
    let mut step = 0_i64;
    for _ in 0..count {
        step = step.wrapping_add(unzigzag(take_varint(&mut rest)?));
        points.push(Point {
            step,
            time_us: 0,
            value: 0.0,
        });
    }
    let mut time = 0_i64;
    for point in &mut points[start..] {
        time = time.wrapping_add(unzigzag(take_varint(&mut rest)?));
        point.time_us = time as u64;
    }
    let (values, left) = rest.as_chunks::<8>();
    if values.len() != count || !left.is_empty() {
        return Err(DamagedChunk("its values do not match its count"));
    }
    for (point, bits) in points[start..].iter_mut().zip(values) {
        point.value = f64::from_bits(u64::from_le_bytes(*bits));
    }
    Ok(())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn push_varint(packed: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        packed.push(value as u8 | 0x80);
        value >>= 7;
    }
    packed.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, DamagedChunk> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(DamagedChunk("it ends early"))?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DamagedChunk("a number in it is too long"))
}

/// Thins a series of known length as it streams by, in memory that depends only on what is kept. The
/// first and last points stay; between them each of equal stretches gives its smallest and largest
/// value, in the order they came, so that no spike is thinned away.
pub(crate) struct Thinner {
    total: u64,
    max: usize,
    seen: u64,
    buckets: u64,
    bucket: u64,
    least: Option<(u64, Point)>,
    most: Option<(u64, Point)>,
    kept: Vec<Point>,
}

impl Thinner {
    /// For a series of `total` points, keeping at most `max`.
    pub(crate) fn new(total: u64, max: usize) -> Self {
        Self {
            total,
            max,
            seen: 0,
            buckets: (max.saturating_sub(2) / 2) as u64,
            bucket: 0,
            least: None,
            most: None,
            kept: Vec::with_capacity(max.min(usize::try_from(total).unwrap_or(max))),
        }
    }

    /// Takes the next point; points past `total` are ignored.
    pub(crate) fn push(&mut self, point: Point) {
        let index = self.seen;
        if index >= self.total {
            return;
        }
        self.seen += 1;
        if self.total <= self.max as u64 {
            self.kept.push(point);
            return;
        }
        let last = index + 1 == self.total;
        if last {
            self.flush();
            if self.max >= 1 {
                self.kept.push(point);
            }
        } else if index == 0 {
            if self.max >= 2 {
                self.kept.push(point);
            }
        } else if self.buckets > 0 {
            let bucket = (u128::from(index - 1) * u128::from(self.buckets)
                / u128::from(self.total - 2)) as u64;
            if bucket != self.bucket {
                self.flush();
                self.bucket = bucket;
            }
            // A NaN is kept only while nothing comparable has come.
            let replaces = |held: Option<(u64, Point)>, smaller: bool| match held {
                None => true,
                Some((_, held)) if held.value.is_nan() => !point.value.is_nan(),
                Some((_, held)) if smaller => point.value < held.value,
                Some((_, held)) => point.value > held.value,
            };
            if replaces(self.least, true) {
                self.least = Some((index, point));
            }
            if replaces(self.most, false) {
                self.most = Some((index, point));
            }
        }
    }

    fn flush(&mut self) {
        match (self.least.take(), self.most.take()) {
            (Some((at, point)), Some((other_at, _))) if at == other_at => self.kept.push(point),
            (Some((least_at, least)), Some((most_at, most))) => {
                if least_at < most_at {
                    self.kept.extend([least, most]);
                } else {
                    self.kept.extend([most, least]);
                }
            }
            _ => {}
        }
    }

    /// What was kept, in the order logged.
    pub(crate) fn finish(self) -> Vec<Point> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(points: &[Point]) -> Vec<(i64, u64, u64)> {
        points
            .iter()
            .map(|point| (point.step, point.time_us, point.value.to_bits()))
            .collect()
    }

    proptest! {
        #[test]
        fn packed_points_read_back_bit_for_bit(
            raw in proptest::collection::vec((any::<i64>(), any::<u64>(), any::<u64>()), 0..300)
        ) {
            let points: Vec<Point> = raw.iter()
                .map(|&(step, time_us, value)| Point { step, time_us, value: f64::from_bits(value) })
                .collect();
            let mut back = Vec::new();
            unpack(&pack(&points), &mut back).unwrap();
            prop_assert_eq!(bits(&back), bits(&points));
        }

        #[test]
        fn damaged_chunks_are_refused_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = unpack(&bytes, &mut Vec::new());
        }

        #[test]
        fn thinning_keeps_both_ends_the_extremes_and_the_limit(
            values in proptest::collection::vec(-1000.0..1000.0_f64, 1..400),
            max in 4usize..60,
        ) {
            let points: Vec<Point> = values.iter().enumerate()
                .map(|(at, &value)| Point { step: at as i64, time_us: 0, value })
                .collect();
            let mut thinner = Thinner::new(points.len() as u64, max);
            points.iter().for_each(|&point| thinner.push(point));
            let kept = thinner.finish();
            prop_assert!(kept.len() <= max);
            prop_assert!(kept.windows(2).all(|pair| pair[0].step < pair[1].step));
            prop_assert_eq!(kept[0], points[0]);
            prop_assert_eq!(kept[kept.len() - 1], points[points.len() - 1]);
            let largest = |points: &[Point]| points.iter().map(|p| p.value).fold(f64::MIN, f64::max);
            let smallest = |points: &[Point]| points.iter().map(|p| p.value).fold(f64::MAX, f64::min);
            prop_assert_eq!(largest(&kept), largest(&points));
            prop_assert_eq!(smallest(&kept), smallest(&points));
        }
    }

    #[test]
    fn the_bytes_of_a_chunk_never_change() {
        let packed = pack(&[
            Point {
                step: 1,
                time_us: 1000,
                value: 0.5,
            },
            Point {
                step: 2,
                time_us: 900,
                value: f64::INFINITY,
            },
        ]);
        let golden: &[u8] = &[
            1, 2, 2, 2, 0xd0, 0x0f, 0xc7, 0x01, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0, 0, 0, 0, 0, 0,
            0xf0, 0x7f,
        ];
        assert_eq!(packed, golden);
    }

    #[test]
    fn a_count_that_lies_allocates_nothing() {
        let mut lying = vec![VERSION];
        push_varint(&mut lying, u64::MAX);
        assert!(unpack(&lying, &mut Vec::new()).is_err());
    }

    #[test]
    fn thinning_to_one_keeps_the_last() {
        let mut thinner = Thinner::new(10, 1);
        for step in 0..10 {
            thinner.push(Point {
                step,
                time_us: 0,
                value: 0.0,
            });
        }
        assert_eq!(thinner.finish().len(), 1);
    }
}
