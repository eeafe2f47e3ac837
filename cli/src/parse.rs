//! Values as people write them: `20G`, `2h30m`, `0.5`, `team=nlp`. Pure functions; each refusal says
//! the value, what is allowed, and what to write instead.

use crate::failure::Failure;

/// Units of memory and files. Powers of two throughout: a "20G" GPU share means what `nvidia-smi`
/// calls 20 GiB, and people write `G`, `GB` and `GiB` for the same thing.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1 << 40),
    ("tib", 1 << 40),
];

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const SIZE_ALLOWED: &str = "a number and a unit: 512M, 20G, 1.5G, 80GiB, 1T";
const DURATION_ALLOWED: &str = "numbers and units: 30s, 90m, 2h, 1h30m, 7d";

/// A size in bytes.
pub fn size_bytes(text: &str) -> Result<u64, Failure> {
    let refuse = |hint: String| {
        Failure::usage(format!("`{text}` is not a size"))
            .allowed(SIZE_ALLOWED)
            .hint(hint)
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(trimmed.len());
    let (number, unit) = (
        trimmed[..split].trim(),
        trimmed[split..].to_ascii_lowercase(),
    );
    if unit.is_empty() && !number.is_empty() {
        return Err(refuse(format!("add a unit: {number}G, or {number}M")));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(refuse("units are K, M, G and T".to_owned()));
    };
    let milli = decimal_milli(number).ok_or_else(|| refuse("write it like 20G".to_owned()))?;
    let bytes = u128::from(milli) * u128::from(*factor) / 1000;
    match u64::try_from(bytes) {
        Ok(0) => Err(refuse("it must be more than zero".to_owned())),
        Ok(bytes) if bytes <= 1 << 60 => Ok(bytes),
        _ => Err(refuse("the largest is 1000000T".to_owned())),
    }
}

/// A size in MiB; less than one MiB is refused rather than rounded to nothing.
pub fn size_mib(text: &str) -> Result<u64, Failure> {
    match size_bytes(text)? >> 20 {
        0 => Err(Failure::usage(format!("`{text}` is less than 1M"))
            .allowed(SIZE_ALLOWED)
            .hint("ask for 1M or more")),
        mib => Ok(mib),
    }
}

/// A time before the limit, and the signal to send then: `5m`, `5m:SIGUSR2`. Which signals there are is
/// the server's to say.
pub fn warning(text: &str) -> Result<(u64, String), Failure> {
    let (time, signal) = text.split_once(':').unwrap_or((text, "SIGUSR1"));
    let signal = signal.to_ascii_uppercase();
    let signal = if signal.starts_with("SIG") {
        signal
    } else {
        format!("SIG{signal}")
    };
    Ok((duration_ms(time)?, signal))
}

/// How long to wait until something happens, or that it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It never happens.
    Off,
    /// So long, in milliseconds.
    Ms(u64),
}

impl Wait {
    /// In milliseconds; `None`: never.
    pub fn ms(self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Ms(ms) => Some(ms),
        }
    }
}

/// `30m`, or `off`.
pub fn wait(text: &str) -> Result<Wait, Failure> {
    match text.trim() {
        "off" => Ok(Wait::Off),
        text => duration_ms(text).map(Wait::Ms),
    }
}

/// A duration in milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, Failure> {
    let refuse = |hint: &str| {
        Failure::usage(format!("`{text}` is not a duration"))
            .allowed(DURATION_ALLOWED)
            .hint(hint)
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse("write it like 2h"));
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let unit_at = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| refuse("add a unit: s, m, h or d"))?;
        let number = decimal_milli(&rest[..unit_at]).ok_or_else(|| refuse("write it like 2h"))?;
        rest = &rest[unit_at..];
        let next_at = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let unit = rest[..next_at].to_ascii_lowercase();
        let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(refuse("units are ms, s, m, h, d and w"));
        };
        total += u128::from(number) * u128::from(*factor) / 1000;
        rest = &rest[next_at..];
    }
    match u64::try_from(total) {
        Ok(0) => Err(refuse("it must be more than zero")),
        // Ten years: beyond it a figure is a slip of the pen, and microseconds still fit everywhere.
        Ok(ms) if ms <= 315_360_000_000 => Ok(ms),
        _ => Err(refuse("the longest is 3650d")),
    }
}

/// A part of one GPU, 0.01 to 0.99, in thousandths.
pub fn gpu_fraction_milli(text: &str) -> Result<u32, Failure> {
    let refuse = |hint: &str| {
        Failure::usage(format!("`{text}` is not a part of a GPU"))
            .allowed("0.01 to 0.99")
            .hint(hint.to_owned())
    };
    match decimal_milli(text.trim()) {
        Some(milli @ 10..=990) => Ok(milli as u32),
        Some(1000..) => Err(refuse("ask for whole GPUs with --gpus")),
        Some(_) => Err(refuse("the smallest part is 0.01; --gpus 0 asks for none")),
        None => Err(refuse("write it like 0.5")),
    }
}

/// GPUs that may be whole or in part, in thousandths: `8`, `1.5`, `0`.
pub fn gpus_milli(text: &str) -> Result<u64, Failure> {
    decimal_milli(text.trim()).ok_or_else(|| {
        Failure::usage(format!("`{text}` is not a number of GPUs")).allowed("0, 1.5, 8, …")
    })
}

/// A number of CPUs, in thousandths, at least one thousandth.
pub fn cpus_milli(text: &str) -> Result<u64, Failure> {
    match decimal_milli(text.trim()) {
        Some(milli) if milli > 0 => Ok(milli),
        _ => Err(Failure::usage(format!("`{text}` is not a number of CPUs"))
            .allowed("more than 0: 0.5, 1, 16")
            .hint("leave --cpus out to reserve none")),
    }
}

/// Money in millionths of the currency: `2.5`.
pub fn money_micro(text: &str) -> Result<u64, Failure> {
    let refuse = || {
        Failure::usage(format!("`{text}` is not an amount of money"))
            .allowed("0, 2, 2.50, up to 6 decimals")
    };
    decimal(text.trim(), 6).ok_or_else(refuse)
}

/// `KEY=VALUE`, with a key that is not empty.
pub fn key_value(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(Failure::usage(format!("`{text}` is not KEY=VALUE"))
            .allowed("KEY=VALUE")
            .hint("for example team=nlp")),
    }
}

/// `KEY=VALUE` of a cost tag: neither side may be empty.
pub fn tag(text: &str) -> Result<(String, String), Failure> {
    let (key, value) = key_value(text)?;
    if value.trim().is_empty() {
        return Err(Failure::usage(format!("tag `{key}` has no value"))
            .allowed("KEY=VALUE")
            .hint(format!("--tag {key}=…")));
    }
    Ok((key, value.trim().to_owned()))
}

/// `KEY=VALUE` of the environment: a name that a process can have, and not one the platform sets.
pub fn environment(text: &str) -> Result<(String, String), Failure> {
    let (key, value) = key_value(text)?;
    environment_name(&key)?;
    if value.contains('\0') {
        return Err(
            Failure::usage(format!("the value of {key} has a NUL in it"))
                .allowed("any text without NUL"),
        );
    }
    Ok((key, value))
}

/// Whether a name can stand in the environment of a workload.
pub fn environment_name(key: &str) -> Result<(), Failure> {
    let letters = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if key.is_empty() || !letters || key.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(
            Failure::usage(format!("`{key}` is not a name of an environment variable"))
                .allowed("letters, digits and _, not starting with a digit"),
        );
    }
    if key.starts_with("PLATFORM_") {
        return Err(Failure::usage(format!("`{key}` is set by the platform"))
            .allowed("names that do not start with PLATFORM_")
            .hint("choose another name"));
    }
    Ok(())
}

/// A moment, in microseconds since the epoch: `7d` means so long before `now_us`; a date or a
/// timestamp stands for itself.
pub fn moment_us(text: &str, now_us: u64) -> Result<u64, Failure> {
    let trimmed = text.trim();
    if let Ok(ms) = duration_ms(trimmed) {
        return Ok(now_us.saturating_sub(ms.saturating_mul(1000)));
    }
    let refuse = || {
        Failure::usage(format!("`{text}` is neither a duration nor a date"))
            .allowed("7d, 12h, 2026-11-01, 2026-11-01T08:00:00Z")
    };
    let microseconds = if let Ok(timestamp) = trimmed.parse::<jiff::Timestamp>() {
        timestamp.as_microsecond()
    } else {
        let date: jiff::civil::Date = trimmed.parse().map_err(|_| refuse())?;
        date.to_zoned_datetime(jiff::tz::TimeZone::system())
            .map_err(|_| refuse())?
            .timestamp()
            .as_microsecond()
    };
    u64::try_from(microseconds).map_err(|_| refuse())
}

/// A moment to come, in microseconds since the epoch: a date is its beginning in UTC, whatever the
/// reader's own zone, for money is counted on one calendar.
pub fn utc_moment_us(text: &str) -> Result<u64, Failure> {
    let refuse = || {
        Failure::usage(format!("`{text}` is not a date"))
            .allowed("2027-01-01, 2027-01-01T08:00:00Z")
    };
    let trimmed = text.trim();
    let timestamp = match trimmed.parse::<jiff::Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => trimmed
            .parse::<jiff::civil::Date>()
            .and_then(|date| date.to_zoned_datetime(jiff::tz::TimeZone::UTC))
            .map_err(|_| refuse())?
            .timestamp(),
    };
    u64::try_from(timestamp.as_microsecond()).map_err(|_| refuse())
}

/// Checks the text of a moment at parse time; the clock is read later, once.
pub fn moment_text(text: &str) -> Result<String, Failure> {
    moment_us(text, u64::MAX).map(|_| text.to_owned())
}

/// `MODEL=SIZE`, for caps.
pub fn model_size(text: &str) -> Result<(String, u64), Failure> {
    let (key, value) = key_value(text)?;
    Ok((key, size_mib(&value)?))
}

/// `MODEL=MONEY`, for prices.
pub fn model_money(text: &str) -> Result<(String, u64), Failure> {
    let (key, value) = key_value(text)?;
    Ok((key, money_micro(&value)?))
}

/// `KEY` or `KEY=VALUE,VALUE`: a required tag and the values it may have.
pub fn tag_rule(text: &str) -> Result<(String, Vec<String>), Failure> {
    let (key, values) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(
            Failure::usage(format!("`{text}` names no tag")).allowed("KEY, or KEY=VALUE,VALUE")
        );
    }
    let values = values
        .split(',')
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .map(str::to_owned)
        .collect();
    Ok((key.trim().to_owned(), values))
}

/// A run by its id; the bare number is accepted for hurried hands.
pub fn run_id(text: &str) -> Result<String, Failure> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(format!("run-{trimmed}"));
    }
    let plain = trimmed
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if plain && (trimmed.starts_with("run-") || trimmed.starts_with("local-")) {
        return Ok(trimmed.to_owned());
    }
    Err(Failure::usage(format!("`{text}` is not a run"))
        .allowed("run-17, or 17")
        .hint("platform runs list"))
}

/// An array by its id.
pub fn array_id(text: &str) -> Result<String, Failure> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix("array-").unwrap_or(trimmed);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(format!("array-{digits}"));
    }
    Err(Failure::usage(format!("`{text}` is not an array"))
        .allowed("array-17, or 17")
        .hint("platform runs list"))
}

/// A run, or an array when it says so.
pub fn run_or_array(text: &str) -> Result<String, Failure> {
    if text.trim().starts_with("array-") {
        array_id(text)
    } else {
        run_id(text)
    }
}

/// A run to follow, and how it must have ended: `17`, `run-17:ok`, `run-17:any`.
pub fn dependency(text: &str) -> Result<String, Failure> {
    let (run, condition) = text.split_once(':').unwrap_or((text, "ok"));
    match (run_or_array(run), condition) {
        (Ok(run), "ok" | "any") => Ok(format!("{run}:{condition}")),
        _ => Err(Failure::usage(format!("`{text}` is not a run to follow"))
            .allowed("run-17, run-17:ok, run-17:any, array-17")
            .hint("platform runs list")),
    }
}

/// A decimal number, not negative, in thousandths.
fn decimal_milli(text: &str) -> Option<u64> {
    decimal(text, 3)
}

/// A decimal number, not negative, times ten to the `places`. Exact: no float passes through, and
/// digits beyond the places are refused rather than dropped.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty())
        || !digits(whole)
        || !digits(part)
        || part.len() > places
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let part: u64 = format!("{part:0<places$}").parse().ok()?;
    whole
        .checked_mul(10u64.pow(places as u32))?
        .checked_add(part)
}

/// The one of `known` that is nearest to `wrong`, when one is near enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known
        .into_iter()
        .map(|word| (edit_distance(wrong, word), word))
        .min()?;
    (near.0 <= near.1.len().max(wrong.len()) / 2).then_some(near.1)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(parse: impl Fn(&str) -> Result<u64, Failure>, wrong: &[&str]) -> String {
        wrong
            .iter()
            .map(|text| format!("{}\n", parse(text).expect_err(text)))
            .collect()
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read: Vec<u64> = ["20G", "512M", "80GiB", "1T", "1.5G", "20 gb", "2048K"]
            .iter()
            .map(|t| size_mib(t).unwrap())
            .collect();
        assert_eq!(read, [20480, 512, 81920, 1 << 20, 1536, 20480, 2]);
    }

    #[test]
    fn a_malformed_size_is_refused_with_what_to_write() {
        insta::assert_snapshot!(refusals(
            size_mib,
            &[
                "20",
                "20Q",
                "",
                "G",
                "-1G",
                "0G",
                "12K",
                "1e3G",
                "99999999999999999999T"
            ]
        ));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let read: Vec<u64> = ["2h", "90m", "30s", "1h30m", "7d", "250ms", "1.5h"]
            .iter()
            .map(|t| duration_ms(t).unwrap())
            .collect();
        assert_eq!(
            read,
            [
                7_200_000,
                5_400_000,
                30_000,
                5_400_000,
                604_800_000,
                250,
                5_400_000
            ]
        );
    }

    #[test]
    fn a_malformed_duration_is_refused_with_what_to_write() {
        insta::assert_snapshot!(refusals(
            duration_ms,
            &["2", "", "2x", "h", "-2h", "0s", "99999d", "2h 3"]
        ));
    }

    #[test]
    fn a_part_of_a_gpu_lies_between_a_hundredth_and_ninety_nine() {
        let read: Vec<u32> = ["0.01", "0.5", ".25", "0.333", "0.99"]
            .iter()
            .map(|t| gpu_fraction_milli(t).unwrap())
            .collect();
        assert_eq!(read, [10, 500, 250, 333, 990]);
        insta::assert_snapshot!(refusals(
            |t| gpu_fraction_milli(t).map(u64::from),
            &["0", "1", "1.5", "0.001", "half", "-0.5", "NaN"]
        ));
    }

    #[test]
    fn money_is_exact_to_the_millionth() {
        assert_eq!(money_micro("2.5").unwrap(), 2_500_000);
        assert_eq!(money_micro("0.000001").unwrap(), 1);
        assert!(money_micro("0.0000001").is_err());
        assert!(money_micro("-1").is_err());
    }

    #[test]
    fn pairs_need_a_key_and_an_equals_sign() {
        assert_eq!(
            tag("team=nlp").unwrap(),
            ("team".to_owned(), "nlp".to_owned())
        );
        assert_eq!(
            environment("A=b=c").unwrap(),
            ("A".to_owned(), "b=c".to_owned())
        );
        let refused: String = ["team", "=nlp", "team="]
            .iter()
            .map(|t| format!("{}\n", tag(t).unwrap_err()))
            .collect();
        let environments: String = ["1A=b", "A-B=c", "PLATFORM_RUN_ID=x"]
            .iter()
            .map(|t| format!("{}\n", environment(t).unwrap_err()))
            .collect();
        insta::assert_snapshot!(refused + &environments);
    }

    #[test]
    fn a_moment_is_a_duration_ago_or_a_date() {
        assert_eq!(moment_us("1d", 86_400_000_000 + 5).unwrap(), 5);
        assert_eq!(
            moment_us("1970-01-02T00:00:00Z", 0).unwrap(),
            86_400_000_000
        );
        assert!(moment_us("yesterday", 0).is_err());
    }

    #[test]
    fn a_date_of_money_begins_in_utc() {
        assert_eq!(utc_moment_us("1970-01-02").unwrap(), 86_400_000_000);
        assert_eq!(
            utc_moment_us("1970-01-02T01:00:00+01:00").unwrap(),
            86_400_000_000
        );
        for wrong in ["7d", "2027-13-01", "1969-12-31", ""] {
            assert!(utc_moment_us(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_run_is_named_in_full_or_by_its_number() {
        assert_eq!(run_id("17").unwrap(), "run-17");
        assert_eq!(run_id("run-17.0a1b2c3d").unwrap(), "run-17.0a1b2c3d");
        assert!(run_id("../etc").is_err());
        assert!(run_id("").is_err());
    }

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        assert_eq!(nearest("gpu", ["gpus", "memory", "name"]), Some("gpus"));
        assert_eq!(
            nearest("timelimit", ["time_limit", "tags"]),
            Some("time_limit")
        );
        assert_eq!(nearest("zzzzzzzz", ["gpus", "memory"]), None);
    }
}
