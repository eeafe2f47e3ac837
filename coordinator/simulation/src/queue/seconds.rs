//! Seconds as people write them, kept exactly in microseconds.

const SECOND_US: u64 = 1_000_000;

/// Reads decimal seconds, negative ones too; digits after the sixth are dropped. None: not a number,
/// or more than a hundred thousand years.
pub(super) fn parse_us(text: &str) -> Option<i64> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let mut micro = whole.parse::<i64>().ok()? * SECOND_US as i64;
    let mut unit = SECOND_US as i64 / 10;
    for byte in fraction.bytes().take(6) {
        micro += i64::from(byte - b'0') * unit;
        unit /= 10;
    }
    Some(if is_negative { -micro } else { micro })
}

/// Writes microseconds as decimal seconds, whole ones without a fraction.
pub(super) fn print_us(us: u64) -> String {
    let (whole, fraction) = (us / SECOND_US, us % SECOND_US);
    if fraction == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{fraction:06}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_and_written_exactly() {
        for (text, us) in [
            ("0", 0),
            ("27", 27_000_000),
            ("-4062780", -4_062_780_000_000),
            ("1.5", 1_500_000),
            ("0.000001", 1),
            ("0.0000019", 1),
            ("13138.0", 13_138_000_000),
        ] {
            assert_eq!(parse_us(text), Some(us), "{text}");
        }
        for text in [
            "",
            "-",
            ".5",
            "1e3",
            "nan",
            "inf",
            "+1",
            "1.x",
            "9999999999999",
        ] {
            assert_eq!(parse_us(text), None, "{text}");
        }
        assert_eq!(print_us(27_000_000), "27");
        assert_eq!(print_us(1_500_000), "1.5");
        assert_eq!(print_us(1), "0.000001");
    }
}
