//! Clusters: their launch, the places of blocks, the barrier; warpgroups, and what only one lane does.

use crate::common::{Kernel, kernel, refused};
use ptx_sim::{Device, Kind, Module, WarpOrder};

#[test]
fn blocks_know_their_cluster() {
    // One thread a block, which finds its results by the place of the block.
    let run = |registers: [&str; 4], cluster: Option<[u32; 3]>| {
        let mut body = "mov.u32 %r10, %ctaid.y; mov.u32 %r11, %nctaid.x; mad.lo.u32 %r12, %r10, %r11, %cta;
            ld.param.u64 %out, [out]; mad.wide.u32 %out, %r12, 16, %out;"
            .to_owned();
        for (number, register) in registers.iter().enumerate() {
            body += &format!("mov.u32 %r{number}, %{register};");
        }
        let kernel = kernel(&(body + "st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};")).threads(1).grid([6, 4, 1]);
        let run = cluster.map_or(kernel.clone(), |cluster| kernel.cluster(cluster)).clean();
        (0..24).map(|block| run.of(block)).collect::<Vec<_>>()
    };
    let places = |each: fn(u32, u32) -> [u32; 4]| (0..24).map(|block| each(block % 6, block / 6)).collect::<Vec<_>>();
    let (where_, which) = (
        ["cluster_ctaid.x", "cluster_ctaid.y", "cluster_ctarank", "cluster_ctaid.z"],
        ["clusterid.x", "clusterid.y", "nclusterid.x", "nclusterid.y"],
    );
    let sizes = ["cluster_nctaid.x", "cluster_nctaid.y", "cluster_nctaid.z", "cluster_nctarank"];
    assert_eq!(run(where_, Some([3, 2, 1])), places(|x, y| [x % 3, y % 2, y % 2 * 3 + x % 3, 0]));
    assert_eq!(run(which, Some([3, 2, 1])), places(|x, y| [x / 3, y / 2, 2, 2]));
    assert_eq!(run(sizes, Some([3, 2, 1])), places(|_, _| [3, 2, 1, 6]));
    assert_eq!(run(where_, None), places(|_, _| [0; 4]));
    assert_eq!(run(which, None), places(|x, y| [x, y, 6, 4]));
    assert_eq!(run(sizes, None), places(|_, _| [1; 4]));
}

/// The kernel with a directive.
fn with(body: &str, directive: &str) -> Kernel {
    kernel(body).replace("\n{\n", &format!("\n{directive}\n{{\n"))
}

#[test]
fn the_text_or_the_launch_gives_the_shape() {
    let body = "mov.pred %p1, %is_explicit_cluster; selp.u32 %r0, 1, 0, %p1; mov.u32 %r1, %cluster_nctarank;
        st.global.v2.u32 [%out], {%r0, %r1};";
    assert_eq!(kernel(body).blocks(4).clean().of(0)[..2], [0, 1]);
    assert_eq!(kernel(body).blocks(4).cluster([1; 3]).clean().of(0)[..2], [1, 1]);
    assert_eq!(kernel(body).blocks(4).cluster([4, 1, 1]).clean().of(0)[..2], [1, 4]);
    assert_eq!(with(body, ".reqnctapercluster 2").blocks(4).clean().of(0)[..2], [1, 2]);
    assert_eq!(with(body, ".reqnctapercluster 2").blocks(4).cluster([2, 1, 1]).clean().of(0)[..2], [1, 2]);
    let explicit = with(body, ".explicitcluster .maxclusterrank 8");
    assert_eq!(explicit.blocks(8).cluster([8, 1, 1]).clean().of(0)[..2], [1, 8]);
}

#[test]
fn a_shape_that_does_not_fit_is_refused() {
    let refusal = |kernel: Kernel| {
        let error = kernel.run_on(&mut Device::new()).err().expect("it is refused");
        (error.field, error.to_string())
    };
    let four = || kernel("").blocks(4);
    assert_eq!(refusal(four().cluster([3, 1, 1])).0, "grid");
    assert_eq!(refusal(four().cluster([1, 2, 1])).0, "grid");
    assert_eq!(refusal(with("", ".reqnctapercluster 3").blocks(4)).0, "grid");
    assert_eq!(refusal(four().cluster([0, 1, 1])).0, "cluster");
    assert_eq!(
        refusal(kernel("").blocks(32).cluster([32, 1, 1])),
        ("cluster", "cluster: [32, 1, 1], allowed: 1 to 16 blocks".into())
    );
    let two = || with("", ".reqnctapercluster 2").blocks(4);
    assert_eq!(refusal(two().cluster([4, 1, 1])), ("cluster", "cluster: [4, 1, 1], allowed: [2, 1, 1]".into()));
    assert_eq!(refusal(with("", ".maxclusterrank 2").blocks(4).cluster([4, 1, 1])).0, "cluster");
    assert_eq!(refusal(with("", ".explicitcluster").blocks(4)).0, "cluster");
    let text = with("", ".reqntid 32 .reqnctapercluster 2 .blocksareclusters").text();
    assert!(Module::parse(&text).is_err_and(|error| error.message.contains(".blocksareclusters")));
}

/// Every thread reads what the one in the other warp wrote.
const EXCHANGE: &str =
    "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0; xor.b32 %r2, %t, 32; mad.lo.u32 %r2, %r2, 4, %r0;
    st.shared.u32 [%r1], %t;
    barrier.cluster.arrive.release.aligned; mov.u32 %r5, 1; barrier.cluster.wait.acquire.aligned;
    ld.shared.u32 %r3, [%r2];
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // second
    st.shared.u32 [%r1], %r3; st.global.u32 [%out], %r3;";

#[test]
fn the_barrier_of_a_cluster_joins_its_threads() {
    for order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        let run = kernel(EXCHANGE).threads(64).shared(256).options(|options| options.warp_order = order).clean();
        assert_eq!(run.results(), (0..64).map(|t| t ^ 32).collect::<Vec<_>>());
    }
    for (from, to) in [
        ("arrive.release.aligned", "arrive.relaxed.aligned"),
        ("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; // second", ""),
        ("barrier.cluster.wait.acquire.aligned;", ""),
    ] {
        let run = kernel(&EXCHANGE.replace(from, to)).threads(64).shared(256).run();
        assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{to}\n{}", run.report);
    }
}

#[test]
fn a_missing_arrival_at_the_cluster_is_a_deadlock() {
    let body = "setp.eq.u32 %p1, %warp, 0; @%p1 bra wait; barrier.cluster.arrive; wait: barrier.cluster.wait; //!";
    let run = kernel(body).threads(96).run();
    let message = &run.finding(Kind::Deadlock).message;
    assert!(message.contains("the barrier of the cluster, phase 0: 1 of 3 arrivals"), "{message}");
}

#[test]
fn addresses_map_to_the_own_block() {
    let body = "mov.u32 %r0, dynamic; mapa.shared::cluster.u32 %r1, %r0, 0; cvta.shared.u64 %d0, dynamic;
        mapa.u64 %d1, %d0, 0; cvta.to.shared::cluster.u64 %d1, %d1; cvt.u32.u64 %r3, %d1;
        sub.u32 %r1, %r1, %r0; sub.u32 %r3, %r3, %r0; st.global.v2.u32 [%out], {%r1, %r3};";
    assert_eq!(kernel(body).shared(4).clean().of(9)[..2], [0, 0]);
    kernel(&body.replace("%d0, 0;", "%d0, 1;")).shared(4).run().finding(Kind::InvalidOperand);
    kernel("mov.u64 %d0, 5; mapa.u64 %d1, %d0, 0;").run().finding(Kind::WrongSpace);
}

#[test]
fn one_lane_is_elected() {
    let body = "mov.u32 %r0, 0; elect.sync %r1|%p1, -1; @%p1 mov.u32 %r0, 1;
        elect.sync _|%p2, 0xffffffff; selp.u32 %r2, 1, 0, %p2; st.global.v4.u32 [%out], {%r0, %r1, %r2, 0};";
    let run = kernel(body).threads(64).clean();
    assert!((0..64).all(|t| run.of(t) == [u32::from(t % 32 == 0), 0, u32::from(t % 32 == 0), 0]));
    let some = "setp.ge.u32 %p1, %lane, 12; @!%p1 bra done; elect.sync %r1|%p2, 0xfffff000; done: mov.u32 %r2, 3;
        @%p1 st.global.u32 [%out], %r1;";
    assert_eq!(kernel(some).clean().of(20)[0], 12);
    kernel("setp.ge.u32 %p1, %lane, 12; @!%p1 bra done; elect.sync %r1|%p2, -1; done:").run().finding(Kind::Diverged);
}

#[test]
fn warps_of_a_group_change_their_registers_together() {
    let body = "setp.lt.u32 %p1, %t, 128; @%p1 bra first; setmaxnreg.inc.sync.aligned.u32 240; bra done;
        first: setmaxnreg.dec.sync.aligned.u32 24; //!\n done:";
    kernel(body).threads(256).clean();
    let run = kernel(&body.replace("128", "96")).threads(256).run();
    assert_eq!(run.finding(Kind::Diverged).at.line, run.line("//!"));
    let alone = kernel("setp.eq.u32 %p1, %warp, 2; @%p1 setmaxnreg.dec.sync.aligned.u32 40;").threads(128).run();
    assert!(alone.finding(Kind::Diverged).message.contains("40"), "{}", alone.report);
    let lanes = "setp.lt.u32 %p1, %lane, 9; @%p1 bra done; setmaxnreg.dec.sync.aligned.u32 40; done: bar.sync 0;";
    assert!(kernel(lanes).threads(128).run().report.findings.iter().any(|finding| finding.kind == Kind::Diverged));
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "setmaxnreg.inc.sync.aligned.u32 20;",
        "setmaxnreg.inc.sync.aligned.u32 100;",
        "setmaxnreg.dec.sync.aligned.u32 264;",
        "setmaxnreg.dec.sync.aligned.u32 %r1;",
        "setmaxnreg.dec.aligned.u32 24;",
        "elect.sync %r1, -1;",
        "elect %r1|%p1, -1;",
        "barrier.cluster.sync.aligned;",
        "barrier.cluster.arrive 0;",
        "mapa.shared::cluster.u32 %r1, %d0, 0;",
        "mapa.u32 %r1, %r0, 0;",
        "getctarank.u32 %r1, %r0;",
        "mov.pred %p1, %is_explicit_clusters;",
    ] {
        refused(wrong);
    }
}

#[test]
fn hints_change_nothing() {
    kernel("prefetch.tensormap [%in]; griddepcontrol.wait; griddepcontrol.launch_dependents;").clean();
}
