//! The small parts of admission; its whole path is tested through `State::apply`.

use super::gpus;

#[test]
fn thousandths_read_as_people_write_them() {
    let table = [
        (0, "0"),
        (1_000, "1"),
        (1_500, "1.5"),
        (250, "0.25"),
        (1, "0.001"),
        (64_010, "64.01"),
    ];
    for (milli, expected) in table {
        assert_eq!(gpus(milli), expected);
    }
}
