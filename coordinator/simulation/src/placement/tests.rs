//! A cut of openb as a golden, the protocol, and every way in which a trace can be wrong.

use super::{Fault, Pods, Replay, read_nodes, read_pods};
use std::fmt::Write as _;

const NODES: &str = include_str!("../../fixtures/openb-cut/nodes.csv");
const PODS: &str = include_str!("../../fixtures/openb-cut/pods.csv");
const ORDER: &str = include_str!("../../fixtures/openb-cut/order.txt");

fn replay(nodes: &str, pods: &str) -> Replay {
    let nodes = read_nodes(nodes.as_bytes()).expect("good nodes");
    let pods = read_pods(pods.as_bytes(), &nodes).expect("good pods");
    Replay::new(nodes, pods)
}

fn pods(nodes: &str, pods: &str) -> Result<Pods, Fault> {
    read_pods(pods.as_bytes(), &read_nodes(nodes.as_bytes())?)
}

/// A change of policy shows here, load by load.
#[test]
fn the_cut_of_openb_is_filled_as_before() {
    let mut replay = replay(NODES, PODS);
    let mut curve = String::new();
    let mut next_load = 80.0;
    for pod in ORDER.lines() {
        replay.decide(pod).expect("a listed pod");
        let tally = replay.tally();
        if tally.arrived_percent() >= next_load {
            writeln!(
                curve,
                "{next_load} % arrived: {:.1} % allocated, {} of {} refused",
                tally.allocated_percent(),
                tally.refused,
                tally.arrivals
            )
            .expect("written");
            next_load += 10.0;
        }
    }
    insta::assert_snapshot!(curve);
}

#[test]
fn the_same_trace_gives_the_same_decisions() {
    let decisions = || {
        let mut written = Vec::new();
        replay(NODES, PODS)
            .replay(ORDER.as_bytes(), &mut written)
            .expect("a good order");
        written
    };
    assert_eq!(decisions(), decisions());
}

const TWO_NODES: &str = "gpu,sn,model,memory_mib,cpu_milli,more\n\
                         2,Node_A,V100M16,2000,8000,x\n\
                         1,b,T4,1000,4000,\n";
const FOUR_PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n\
                         whole,1000,100,2,1000,\n\
                         part,1000,100,1,460,V100M16|T4\n\
                         bare,1000,100,0,0,\n\
                         bound,1000,100,1,1000,V100\n";

#[test]
fn arrivals_are_answered_line_by_line_and_a_lone_comma_refuses() {
    let mut answers = Vec::new();
    replay(TWO_NODES, FOUR_PODS)
        .answer(
            "0,whole\n1,part\n\n2,bare\n3,bound\n4,whole\n".as_bytes(),
            &mut answers,
        )
        .expect("good arrivals");
    let answers = String::from_utf8(answers).expect("text");
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines[0], "Node_A,0:1000|1:1000");
    assert_eq!(lines[1], "b,0:460");
    assert!(lines[2] == "Node_A," || lines[2] == "b,", "{}", lines[2]);
    // A spec names models outright: V100 is not V100M16.
    assert_eq!(lines[3..], [",", ","]);
}

/// A reader that has only the arrivals that were answered for.
#[test]
fn an_arrival_is_answered_before_the_next_is_read() {
    use std::cell::RefCell;
    use std::io::{BufReader, Read, Write};
    use std::rc::Rc;

    struct Arrivals(Rc<RefCell<usize>>, usize);
    impl Read for Arrivals {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert_eq!(*self.0.borrow(), self.1, "everything read is answered");
            if self.1 == 3 {
                return Ok(0);
            }
            let line = format!("{},bare\n", self.1);
            self.1 += 1;
            buffer[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }
    struct Answers(Rc<RefCell<usize>>);
    impl Write for Answers {
        fn write(&mut self, written: &[u8]) -> std::io::Result<usize> {
            *self.0.borrow_mut() += written.iter().filter(|byte| **byte == b'\n').count();
            Ok(written.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let answered = Rc::new(RefCell::new(0));
    replay(TWO_NODES, FOUR_PODS)
        .answer(
            BufReader::new(Arrivals(answered.clone(), 0)),
            Answers(answered.clone()),
        )
        .expect("good arrivals");
    assert_eq!(*answered.borrow(), 3);
}

#[test]
fn whatever_is_wrong_with_a_trace_is_named() {
    let header = "sn,cpu_milli,memory_mib,gpu,model\n";
    let table = [
        ("", "nodes has no column \"sn\""),
        (
            "sn,cpu_milli,memory_mib,gpu\n",
            "nodes has no column \"model\"",
        ),
        (header, "nodes names nothing"),
        (
            &format!("{header}a,-1,1,1,T4\n"),
            "line 2 of nodes: cpu_milli is \"-1\", and must be a whole number from 0 to 1000000000",
        ),
        (
            &format!("{header}a,1,1e9,1,T4\n"),
            "line 2 of nodes: memory_mib is \"1e9\", and must be a whole number from 0 to 1099511627776",
        ),
        (
            &format!("{header}a,1,1,5000,T4\n"),
            "line 2 of nodes: gpu is \"5000\", and must be a whole number from 0 to 1024",
        ),
        (
            &format!("{header}a,1,1,1,T4\na,1,1,1,T4\n"),
            "line 3 of nodes: \"a\" was named before",
        ),
        (
            &format!("{header},1,1,1,T4\n"),
            "line 2 of nodes: sn is \"\", and must be a name without commas, quotes and line ends",
        ),
    ];
    for (nodes, expected) in table {
        let fault = read_nodes(nodes.as_bytes()).err().expect("a fault");
        assert_eq!(fault.to_string(), expected);
    }
    let header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n";
    let table = [
        ("name,num_gpu\n", "pods has no column \"cpu_milli\""),
        (header, "pods names nothing"),
        (
            &format!("{header}p,1,1,1,1001\n"),
            "line 2 of pods: gpu_milli is \"1001\", and must be a whole number from 0 to 1000",
        ),
        (
            &format!("{header}p,1,1,1,0\n"),
            "line 2 of pods: gpu_milli is \"0\", and must be from 1 to 1000 where num_gpu is not 0",
        ),
        (
            &format!("{header}p,1,1,99999999999999999999,1\n"),
            "line 2 of pods: num_gpu is \"99999999999999999999\", and must be a whole number from 0 to 1024",
        ),
        (
            &format!("{header}p,1,1,1,1\np,1,1,1,1\n"),
            "line 3 of pods: \"p\" was named before",
        ),
    ];
    for (listed, expected) in table {
        let fault = pods(TWO_NODES, listed).err().expect("a fault");
        assert_eq!(fault.to_string(), expected);
    }
    let ragged = pods(TWO_NODES, &format!("{header}p,1\n")).err();
    assert!(matches!(
        ragged,
        Some(Fault::Unreadable { file: "pods", .. })
    ));
}

#[test]
fn an_arrival_that_is_none_or_unknown_is_named() {
    let mut replay = replay(TWO_NODES, FOUR_PODS);
    let mut fault = |arrivals: &str| {
        replay
            .answer(arrivals.as_bytes(), Vec::new())
            .expect_err("a fault")
            .to_string()
    };
    assert_eq!(
        fault("0,nobody\n"),
        "no pod \"nobody\" is in the list of pods"
    );
    assert_eq!(
        fault("\nwhole\n"),
        "line 2 of the arrivals is \"whole\", and must be <index>,<pod name>"
    );
}
