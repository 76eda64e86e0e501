//! The exchange between processes, as threads over real connections.

use std::{
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use proptest::prelude::*;
use tinylm_model::{
    engine::LossSum,
    reduction::{Part, ReductionError, add, join_parts},
    tree::{nodes, sum},
};

use tinylm_pipeline::Follows;

use super::{
    Errand, Hello,
    group::refuse_others,
    link::{Link, Secret},
    member::Member,
    mesh::{Mesh, Peer},
};

/// The two ends of a connection.
fn pair(secret: &Secret) -> [Link; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let called = scope.spawn(move || Link::call(TcpStream::connect(at).unwrap(), secret));
        let answered = Link::answer(listener.accept().unwrap().0, secret);
        [answered.unwrap(), called.join().unwrap().unwrap()]
    })
}

fn meshes(n_ranks: usize, n_numbers: usize) -> Vec<Mesh> {
    let secret = Secret::new().unwrap();
    let mut meshes: Vec<Mesh> = (0..n_ranks)
        .map(|rank| Mesh {
            rank,
            n_ranks,
            n_numbers,
            peers: Vec::new(),
        })
        .collect();
    for a in 0..n_ranks {
        for b in a + 1..n_ranks {
            let [to_b, to_a] = pair(&secret);
            for (here, there, link) in [(a, b, to_b), (b, a, to_a)] {
                let host = "here".to_owned();
                let rank = there;
                meshes[here].peers.push(Peer { rank, host, link });
            }
        }
    }
    meshes
}

/// A leaf's gradient: numbers whose sum hangs on the order in which they are added.
fn leaf(leaf: usize, n_numbers: usize) -> Part {
    let number = |idx: usize| {
        let bits = blake3::hash(&[leaf as u8, idx as u8, (idx >> 8) as u8]);
        let bits = bits.as_bytes();
        f32::from(bits[0]) * 2_f32.powi(i32::from(bits[1] % 40) - 20) - f32::from(bits[2])
    };
    Part {
        leaves: leaf..leaf + 1,
        loss: LossSum {
            nll: 1.0 / (leaf + 3) as f64,
            weight: leaf as f64,
        },
        gradient: (0..n_numbers).map(number).collect(),
    }
}

fn parts(mesh: &Mesh, n_leaves: usize) -> Vec<Part> {
    let mut make = |one| Ok::<_, ()>(leaf(one, mesh.n_numbers));
    let nodes = nodes(0..n_leaves, &mesh.ours(n_leaves)).into_iter();
    nodes
        .map(|node| sum(&node, &mut make, &add).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_come_to_hold_the_bits_of_one(
        n_ranks in 1_usize..7,
        n_leaves in 1_usize..12,
        n_numbers in 1_usize..700,
    ) {
        let leaves = (0..n_leaves).map(|one| leaf(one, n_numbers)).collect();
        let alone = join_parts(n_leaves, leaves).unwrap();
        let meshes = meshes(n_ranks, n_numbers);
        thread::scope(|scope| {
            let at_work: Vec<_> = meshes
                .iter()
                .map(|mesh| scope.spawn(move || mesh.combine(n_leaves, &parts(mesh, n_leaves))))
                .collect();
            for one in at_work {
                assert_eq!(one.join().unwrap().unwrap(), alone);
            }
        });
    }
}

#[track_caller]
fn lost(mesh: &Mesh, n_leaves: usize) -> String {
    match mesh.combine(n_leaves, &parts(mesh, n_leaves)) {
        Err(ReductionError::Lost(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_is_gone_or_says_nothing_is_named() {
    let mut three = meshes(3, 100_000);
    let gone = three.pop();
    drop(gone);
    let silent = three.pop();
    let first = &three[0];
    for peer in &first.peers {
        peer.link
            .be_patient(Some(Duration::from_millis(300)))
            .unwrap();
    }
    let said = lost(first, 4);
    let named = [
        "process 2 on here says nothing any more",
        "process 3 on here is gone",
    ];
    assert!(named.contains(&said.as_str()), "{said}");
    drop(silent);
}

#[test]
fn a_stranger_is_not_let_in_and_learns_nothing_by_which_it_would_be() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (ours, theirs) = (Secret::new().unwrap(), Secret::new().unwrap());
    thread::scope(|scope| {
        let called = scope.spawn(move || Link::call(TcpStream::connect(at).unwrap(), &theirs));
        let answered = Link::answer(listener.accept().unwrap().0, &ours);
        assert_eq!(
            answered.unwrap_err().kind(),
            std::io::ErrorKind::PermissionDenied
        );
        assert!(called.join().unwrap().is_err());
        // One that gives the other's proof back proves nothing: the two sides prove different things.
        let called = scope.spawn(move || {
            use std::io::{Read, Write};
            let mut stream = TcpStream::connect(at).unwrap();
            let mut bytes = [0; 32];
            for _ in 0..2 {
                stream.read_exact(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            }
        });
        let answered = Link::answer(listener.accept().unwrap().0, &ours);
        assert_eq!(
            answered.unwrap_err().kind(),
            std::io::ErrorKind::PermissionDenied
        );
        called.join().unwrap();
    });
}

/// What both sides say of a process that comes with these kernels, and as `change` has it.
#[track_caller]
fn refused(kernels: &str, change: fn(&mut Hello)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = Secret::new().unwrap();
    let follows = Follows {
        rank: 2,
        addresses: vec![listener.local_addr().unwrap().to_string()],
        secret: secret.text(),
    };
    thread::scope(|scope| {
        let joining = scope.spawn(|| Member::join(&follows, kernels));
        let answered = || {
            let (stream, from) = listener.accept().unwrap();
            let link = Link::answer(stream, &secret).unwrap();
            (link.receive::<Hello>().unwrap(), from, link)
        };
        let ((mut hello, from, orders), (_, _, numbers)) = (answered(), answered());
        assert_eq!(hello.errand, Errand::Orders);
        hello.host = "node7".to_owned();
        change(&mut hello);
        let here = refuse_others(&[(hello, from, orders, numbers)], "avx2");
        let Err(ReductionError::Refused(here)) = here else {
            panic!("{here:?}");
        };
        let there = joining.join().unwrap().err().unwrap();
        assert_eq!(there.message, "cannot take part in the training");
        assert_eq!(there.cause.as_ref(), Some(&here));
        here
    })
}

#[test]
fn one_with_other_kernels_or_of_another_version_is_refused_and_both_sides_say_why() {
    assert_eq!(
        refused("avx512", |_| ()),
        "process 3 on node7 computes with avx512, and this one with avx2: their sums would be other bits"
    );
    let here = env!("CARGO_PKG_VERSION");
    assert_eq!(
        refused("avx2", |hello| hello.version.push_str("-old")),
        format!("process 3 on node7 is tinylm {here}-old, and this one {here}")
    );
}
