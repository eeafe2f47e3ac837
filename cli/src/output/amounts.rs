//! Numbers for people: money, time, memory, GPUs. Pure.

/// Money in millionths: two decimals, or as many as it takes to show that it is not nothing.
pub fn money(micro: u64, currency: &str) -> String {
    format!("{} {currency}", money_figure(micro))
}

/// The figure alone.
pub fn money_figure(micro: u64) -> String {
    if micro == 0 || micro >= 1_000_000 {
        // Half a cent rounds up: a sum of rows then differs from the total by less than a cent a row.
        let cents = (micro + 5_000) / 10_000;
        return format!("{}.{:02}", cents / 100, cents % 100);
    }
    let text = format!("0.{micro:06}");
    let kept = text.trim_end_matches('0');
    if kept.len() < 4 {
        format!("{kept:0<4}")
    } else {
        kept.to_owned()
    }
}

/// A length of time in microseconds.
pub fn duration(us: u64) -> String {
    let seconds = us / 1_000_000;
    match seconds {
        0 => format!("{} ms", us / 1000),
        1..=59 => format!("{}.{}s", seconds, us % 1_000_000 / 100_000),
        60..=3599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago, in one unit; `-` for what was there from the beginning.
pub fn ago(then_us: u64, now_us: u64) -> String {
    if then_us == 0 {
        return "-".to_owned();
    }
    let seconds = now_us.saturating_sub(then_us) / 1_000_000;
    match seconds {
        0..=59 => format!("{seconds}s ago"),
        60..=3599 => format!("{}m ago", seconds / 60),
        3600..=86_399 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A moment of the books, in UTC: `2027-01-01 UTC`, the time of day only when there is one.
pub fn utc(us: u64) -> String {
    let Some(time) = i64::try_from(us)
        .ok()
        .and_then(|us| jiff::Timestamp::from_microsecond(us).ok())
    else {
        return "-".to_owned();
    };
    let format = if us.is_multiple_of(86_400_000_000) {
        "%Y-%m-%d UTC"
    } else {
        "%Y-%m-%d %H:%M UTC"
    };
    time.strftime(format).to_string()
}

/// Memory in MiB.
pub fn memory(mib: u64) -> String {
    if mib >= 1024 && mib.is_multiple_of(1024) {
        format!("{} GiB", mib / 1024)
    } else if mib >= 10 * 1024 {
        format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024)
    } else {
        format!("{mib} MiB")
    }
}

/// Bytes, in the largest unit that keeps a digit before the point.
pub fn bytes(bytes: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if bytes < unit * 1024 {
            return scaled(bytes, unit, name);
        }
        unit *= 1024;
    }
    scaled(bytes, unit, "TiB")
}

fn scaled(bytes: u64, unit: u64, name: &str) -> String {
    if unit == 1 {
        format!("{bytes} B")
    } else {
        format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
    }
}

/// Thousandths, without idle zeros: `1.5`, `8`.
pub fn milli(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// GPU-microseconds as GPU-hours.
pub fn gpu_hours(gpu_us: u64) -> String {
    let milli_hours = gpu_us / 3_600_000;
    if milli_hours == 0 && gpu_us > 0 {
        return "<0.001".to_owned();
    }
    format!("{}.{:03}", milli_hours / 1000, milli_hours % 1000)
}

/// A number as Python would print a metric: at most six significant digits.
pub fn metric(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".to_owned()
        } else if value > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.4e}");
    }
    let places = if size >= 1.0 {
        5 - (size.log10().floor() as usize).min(5)
    } else {
        6
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A moment in the user's own time zone, to the second; `-` for what was there from the beginning.
pub fn moment(us: u64) -> String {
    let zoned = i64::try_from(us)
        .ok()
        .filter(|us| *us > 0)
        .and_then(|us| jiff::Timestamp::from_microsecond(us).ok())
        .map(|timestamp| timestamp.to_zoned_datetime(jiff::tz::TimeZone::system()));
    zoned.map_or_else(
        || "-".to_owned(),
        |zoned| zoned.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// Now, in microseconds since the epoch.
pub fn now_us() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_never_rounds_something_to_nothing() {
        let shown: Vec<String> = [
            0,
            1,
            310,
            12_345,
            500_000,
            999_999,
            1_004_999,
            2_500_000,
            123_456_789_000,
        ]
        .map(money_figure)
        .to_vec();
        assert_eq!(
            shown,
            [
                "0.00",
                "0.000001",
                "0.00031",
                "0.012345",
                "0.50",
                "0.999999",
                "1.00",
                "2.50",
                "123456.79"
            ]
        );
    }

    #[test]
    fn durations_show_two_units_at_most() {
        let shown: Vec<String> = [
            0,
            12_000,
            1_250_000,
            61_000_000,
            7_380_000_000,
            90_000_000_000,
        ]
        .map(duration)
        .to_vec();
        assert_eq!(
            shown,
            ["0 ms", "12 ms", "1.2s", "1m 01s", "2h 03m", "1d 01h"]
        );
    }

    #[test]
    fn memory_bytes_and_shares_keep_their_meaning() {
        assert_eq!(
            [memory(81920), memory(512), memory(1536), memory(40_000)],
            ["80 GiB", "512 MiB", "1536 MiB", "39.0 GiB"]
        );
        assert_eq!(
            [bytes(12), bytes(1536), bytes(500 << 20)],
            ["12 B", "1.5 KiB", "500.0 MiB"]
        );
        assert_eq!(
            [milli(1500), milli(8000), milli(333), milli(0)],
            ["1.5", "8", "0.333", "0"]
        );
        assert_eq!(
            [gpu_hours(0), gpu_hours(1), gpu_hours(5_400_000_000)],
            ["0.000", "<0.001", "1.500"]
        );
    }

    #[test]
    fn metrics_are_short_and_say_nan_and_infinity() {
        let shown: Vec<String> = [
            0.91,
            0.0,
            1.0,
            123.456789,
            1e-9,
            3.2e12,
            f64::NAN,
            f64::INFINITY,
            -0.5,
        ]
        .map(metric)
        .to_vec();
        assert_eq!(
            shown,
            [
                "0.91",
                "0",
                "1",
                "123.457",
                "1.0000e-9",
                "3.2000e12",
                "NaN",
                "inf",
                "-0.5"
            ]
        );
    }
}
