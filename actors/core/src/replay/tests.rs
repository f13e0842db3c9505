use super::*;

struct Case {
    name: &'static str,
    size_ms: i64,
    slide_ms: Option<i64>,
    bound_ms: i64,
    lateness_ms: i64,
    input: &'static str,
    output: &'static str,
}

macro_rules! golden {
    ($name:literal) => {
        (
            include_str!(concat!("../../../../tests/golden/windows/", $name, ".in.csv")),
            include_str!(concat!("../../../../tests/golden/windows/", $name, ".out.csv")),
        )
    };
}

fn cases() -> Vec<Case> {
    let case = |name, (input, output), bound_ms, lateness_ms, size_ms, slide_ms| Case {
        name,
        size_ms,
        slide_ms,
        bound_ms,
        lateness_ms,
        input,
        output,
    };
    vec![
        case("tumbling-strict", golden!("tumbling-strict"), 2000, 0, 10_000, None),
        case("tumbling-lateness", golden!("tumbling-lateness"), 2000, 15_000, 10_000, None),
        case("sliding-strict", golden!("sliding-strict"), 1000, 0, 10_000, Some(2500)),
        case("sliding-lateness", golden!("sliding-lateness"), 1000, 20_000, 12_000, Some(4000)),
    ]
}

fn replay(case: &Case) -> Vec<String> {
    let ms = Span::from_millis;
    let mut replay =
        Replay::new(ms(case.size_ms), case.slide_ms.map(ms), ms(case.bound_ms), ms(case.lateness_ms)).unwrap();
    let mut lines = Vec::new();
    let mut emit = |line: Line| lines.push(line.to_string());
    for line in case.input.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let time = Timestamp::from_millis(fields[1].parse().unwrap());
        replay.push(fields[0], time, fields[2].parse().unwrap(), &mut emit);
    }
    replay.finish(&mut emit);
    lines
}

#[test]
fn golden_files_come_out_line_for_line() {
    for case in cases() {
        let mut lines = replay(&case);
        let mut expected: Vec<&str> = case.output.lines().collect();
        lines.sort();
        expected.sort();
        let missing: Vec<_> = expected.iter().filter(|line| !lines.iter().any(|l| l == *line)).collect();
        let surplus: Vec<_> = lines.iter().filter(|line| !expected.contains(&line.as_str())).collect();
        assert!(lines == expected, "{}: missing {missing:#?}, surplus {surplus:#?}", case.name);
    }
}

#[test]
fn lengths_that_make_no_window_are_refused() {
    let check = |size, slide: Option<i64>, places: &[&str]| {
        let ms = Span::from_millis;
        let problems = Replay::new(ms(size), slide.map(ms), ms(0), ms(0)).map(drop).unwrap_err();
        let got: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(got, places);
    };
    check(0, None, &["size"]);
    check(1000, Some(2000), &["slide"]);
    check(-5, Some(0), &["size", "slide", "slide"]);
}
