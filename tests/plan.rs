//! What the planner promises, without a GPU.

use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::{
    Causal, DType, DevicePointers, DeviceSpec, Error, Fp8, KERNELS, Kernel, Layout, Plan, Problem, ScaleBlocks,
};

const DEVICES: [DeviceSpec; 3] = [DeviceSpec::L4, DeviceSpec::H200, DeviceSpec::A100];

fn mission(dtype: DType) -> Problem {
    let (shape, causal) = ACCEPTANCE[0];
    Problem::contiguous(dtype, shape).with_causal(causal)
}

#[test]
fn every_acceptance_shape_plans_on_every_device_within_its_limits() {
    for device in DEVICES {
        for (shape, causal) in ACCEPTANCE {
            for dtype in DType::ALL {
                let problem = Problem::contiguous(dtype, shape).with_causal(causal).with_lse(true);
                let plan = Plan::new(&problem, &device).unwrap_or_else(|error| panic!("{problem}: {error}"));
                assert_eq!(plan.kernel.dtype(), dtype, "{problem}");
                assert!(plan.shared_bytes <= device.shared_per_block, "{problem}: {plan}");
                assert!(plan.block <= 1024, "{problem}: {plan}");
                if plan.tiles.is_some() {
                    // Persistent blocks have no axes.
                    continue;
                }
                let along = |axis| plan.grid[plan.axes().iter().position(|&name| name == axis).unwrap()];
                let rows = along("query tiles") as usize * plan.kernel.tile_q() as usize;
                assert!(rows >= problem.q_len(), "{problem}: {plan} leaves rows out");
                assert_eq!([along("heads"), along("batch")], [8, shape[0] as u32], "{problem}");
            }
        }
    }
}

#[test]
fn half_precision_gets_tensor_cores() {
    for device in DEVICES {
        for (shape, causal) in ACCEPTANCE {
            for dtype in [DType::F16, DType::Bf16] {
                let problem = Problem::contiguous(dtype, shape).with_causal(causal);
                let kernel = Plan::new(&problem, &device).unwrap().kernel;
                assert!(!matches!(kernel, Kernel::FwdScalar(_)), "{problem}: {kernel}");
            }
        }
    }
}

#[test]
fn the_same_problem_gets_the_same_plan() {
    for device in DEVICES {
        assert_eq!(Plan::new(&mission(DType::Bf16), &device), Plan::new(&mission(DType::Bf16), &device));
    }
}

#[test]
fn every_multiple_of_eight_up_to_256_gets_tensor_cores_on_every_device_and_no_other_head_dim_plans() {
    for (head_dim, device) in (1..=264).flat_map(|head_dim| DEVICES.map(|device| (head_dim, device))) {
        let problem = Problem::contiguous(DType::F16, [1, 2, 2, 64, 64, head_dim]);
        let plan = Plan::new(&problem, &device);
        if head_dim % 8 == 0 && head_dim <= 256 {
            let kernel = plan.unwrap().kernel;
            assert!(!matches!(kernel, Kernel::FwdScalar(_)), "{head_dim}: {kernel}");
            assert!((kernel.least_head_dim()..=kernel.head_dim()).contains(&(head_dim as u32)), "{head_dim}: {kernel}");
        } else {
            let error = plan.unwrap_err();
            assert!(matches!(error, Error::Unsupported { field: "head_dim", .. } | Error::Layout { .. }), "{error}");
            assert!(error.to_string().contains("multiples of"), "{error}");
        }
    }
}

#[test]
fn a_device_before_sm_80_is_refused_by_name() {
    let turing =
        DeviceSpec { compute_capability: 75, sm_count: 40, shared_per_block: 64 << 10, shared_per_sm: 64 << 10 };
    let error = Plan::new(&mission(DType::F16), &turing).unwrap_err().to_string();
    assert!(error.contains("compute capability 75") && error.contains("80 or later"), "{error}");
}

#[test]
fn misaligned_strides_are_refused_and_name_their_tensor() {
    let shape = [1, 2, 16, 64];
    let layout = Layout::strided(&shape, &[2 * 16 * 65, 16 * 65, 65, 1]).unwrap();
    let good = Problem::contiguous(DType::F16, [1, 2, 2, 16, 16, 64]);
    for (field, problem) in
        [("q", Problem { q: layout, ..good }), ("k", Problem { k: layout, ..good }), ("out", good.with_out(layout))]
    {
        let error = Plan::new(&problem, &DeviceSpec::H200).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}: a stride of 130 bytes along seq")), "{error}");
    }
}

#[test]
fn a_view_of_another_axis_order_plans() {
    let shape = [2, 8, 300, 64];
    let problem = Problem { q: Layout::bshd(shape), ..Problem::contiguous(DType::Bf16, [2, 8, 8, 300, 300, 64]) };
    assert!(Plan::new(&problem, &DeviceSpec::L4).is_ok());
}

#[test]
fn a_kernel_asked_for_by_name_is_the_one_that_runs_or_an_error() {
    for device in DEVICES {
        for &kernel in KERNELS {
            let head_dim = kernel.head_dim() as usize;
            let fp8 = kernel.takes_e4m3().then_some(Fp8::uniform(ScaleBlocks::Head));
            let problem = Problem::contiguous(kernel.dtype(), [1, 4, 4, 100, 100, head_dim]).with_fp8(fp8);
            match Plan::with_kernel(&problem, &device, kernel) {
                Ok(plan) => assert_eq!(plan.kernel, kernel),
                Err(error) if !device.runs(kernel) => assert!(error.to_string().contains("capability"), "{error}"),
                Err(error) => assert!(
                    matches!(error, Error::SharedMemory { .. }) && kernel.shared_bytes() > device.shared_per_block,
                    "{kernel}: {error}"
                ),
            }
        }
    }
}

#[test]
fn a_kernel_of_another_type_or_head_dim_is_refused() {
    let is_it = |kernel: &&Kernel| matches!(kernel, Kernel::FwdSm80(c) if c.dtype == DType::Bf16 && c.head_dim == 64);
    let kernel = *KERNELS.iter().find(is_it).unwrap();
    let refused = |problem: Problem| Plan::with_kernel(&problem, &DeviceSpec::L4, kernel).unwrap_err().to_string();
    assert!(refused(mission(DType::F16)).starts_with("dtype: f16 is not supported, allowed: bf16"));
    let wide = Problem::contiguous(DType::Bf16, [1, 1, 1, 8, 8, 96]);
    assert!(refused(wide).starts_with("head_dim: 96 is not supported, allowed: 40 to 64"));
    let kernel = Kernel::parse("fwd_sm80_bf16_d192_q64_kv32_w4_s2").unwrap();
    let narrow = Problem::contiguous(DType::Bf16, [1, 1, 1, 8, 8, 128]);
    let error = Plan::with_kernel(&narrow, &DeviceSpec::L4, kernel).unwrap_err().to_string();
    assert!(error.starts_with("head_dim: 128 is not supported, allowed: 136 to 192"), "{error}");
}

#[test]
fn a_kernel_that_does_not_ship_is_refused_whatever_its_name_says() {
    for name in ["fwd_sm80_bf16_d64_q8192_kv64_w4_s2", "fwd_sm80_bf16_d64_q999999_kv999999_w999999_x999999_s999999"] {
        let kernel = Kernel::parse(name).unwrap();
        let error = Plan::with_kernel(&mission(DType::Bf16), &DeviceSpec::L4, kernel).unwrap_err().to_string();
        assert!(error.starts_with(&format!("kernel: {name}")), "{error}");
    }
}

#[test]
fn nothing_to_compute_is_an_empty_plan_and_no_keys_is_not() {
    let shape = |q_len, kv_len| Problem::contiguous(DType::F16, [1, 2, 2, q_len, kv_len, 64]);
    assert!(Plan::new(&shape(0, 8), &DeviceSpec::L4).unwrap().is_empty());
    assert!(!Plan::new(&shape(8, 0), &DeviceSpec::L4).unwrap().is_empty(), "rows without keys are zeros");
}

#[test]
fn causal_offsets_beyond_i32_stay_what_they_mean() {
    let problem = Problem::contiguous(DType::F16, [1, 1, 1, 8, 8, 64]);
    let offset = |n| {
        let problem = problem.with_causal(Some(Causal::Offset(n)));
        Plan::new(&problem, &DeviceSpec::L4).unwrap().params.causal_offset
    };
    assert!(offset(i64::MAX) > 8);
    assert!(offset(i64::MIN) < -8);
}

/// The plan of a kernel for \[batch, heads, length, head_dim\] under a causal mask.
fn causal_plan(device: &DeviceSpec, [batch, heads, length, head_dim]: [usize; 4], kernel: &str) -> Plan {
    let shape = [batch, heads, heads, length, length, head_dim];
    let problem = Problem::contiguous(DType::Bf16, shape).with_causal(Some(Causal::BottomRight));
    Plan::with_kernel(&problem, device, Kernel::parse(kernel).unwrap()).unwrap()
}

#[test]
fn causal_blocks_that_all_run_at_once_turn_around_after_a_wave() {
    let plan = causal_plan(&DeviceSpec::H200, [2, 8, 2048, 64], "fwd_sm80_bf16_d64_q128_kv64_w4_s2");
    assert_eq!(plan.grid, [8, 2, 16]);
    assert_eq!(plan.axes(), ["heads", "batch", "query tiles"]);
    // 132 SMs hold 8.25 tiles of 16 heads.
    assert_eq!(plan.params.wave_order, 1 + 3);
    let plan = causal_plan(&DeviceSpec::H200, [8, 32, 256, 64], "fwd_sm80_bf16_d64_q128_kv64_w4_s2");
    assert_eq!((plan.grid, plan.params.wave_order), ([32, 8, 2], 1 + 1), "more blocks than run at once");
    let plan = causal_plan(&DeviceSpec::H200, [1, 1, 17024, 64], "fwd_sm80_bf16_d64_q128_kv64_w4_s2");
    assert_eq!((plan.grid, plan.params.wave_order), ([1, 1, 133], 1 + 7), "a block more than SMs");
}

#[test]
fn causal_blocks_that_run_one_after_the_other_come_heaviest_first() {
    for (head_dim, kernel) in
        [(64, "fwd_sm80_bf16_d64_q64_kv64_w4_x2_s2"), (128, "fwd_sm80_bf16_d128_q64_kv32_w4_x2_s2")]
    {
        let plan = causal_plan(&DeviceSpec::H200, [2, 8, 2048, head_dim], kernel);
        // A run of all 32 tiles.
        assert_eq!((plan.grid, plan.params.wave_order), ([8, 2, 32], 1 + 5), "{kernel}");
    }
}

#[test]
fn causal_blocks_go_through_as_many_heads_as_have_room_for_their_keys_in_half_of_l2() {
    let kernel = "fwd_sm80_bf16_d64_q128_kv64_w4_s2";
    let plan = |shape| causal_plan(&DeviceSpec::H200, shape, kernel);
    // 134 MB of keys and values, 34, 17 and 47 MB, in an L2 of 50 MB; 45 heads have no half.
    for (shape, grid) in [
        ([4, 32, 4096, 64], [4, 4, 8 * 32]),
        ([1, 32, 4096, 64], [16, 1, 2 * 32]),
        ([1, 16, 4096, 64], [16, 1, 32]),
        ([1, 45, 4096, 64], [15, 1, 3 * 32]),
    ] {
        let plan = plan(shape);
        assert_eq!((plan.grid, plan.params.wave_order), (grid, 1 + 5), "{shape:?}");
        let axes = if grid[0] == shape[1] as u32 {
            ["heads", "batch", "query tiles"]
        } else {
            ["heads of a group", "batch", "groups x query tiles"]
        };
        assert_eq!(plan.axes(), axes, "{shape:?}");
    }
    // Four query heads for each of eight key heads, which have 34 MB: two groups of four key heads.
    let shape = [4, 32, 8, 4096, 4096, 64];
    let grouped = Problem::contiguous(DType::Bf16, shape).with_causal(Some(Causal::BottomRight));
    let plan = Plan::with_kernel(&grouped, &DeviceSpec::H200, Kernel::parse(kernel).unwrap()).unwrap();
    assert_eq!(plan.grid, [16, 4, 2 * 32]);
}

#[test]
fn blocks_go_head_by_head_where_order_gains_nothing_or_a_head_of_every_sequence_would_not_stay_in_l2() {
    let kernel = "fwd_sm80_bf16_d64_q128_kv64_w4_s2";
    let in_tiles = |plan: Plan| plan.params.wave_order == 0 && plan.axes() == ["query tiles", "heads", "batch"];
    assert!(in_tiles(causal_plan(&DeviceSpec::H200, [32, 2, 4096, 64], kernel)), "34 MB of one head");
    assert!(!in_tiles(causal_plan(&DeviceSpec::H200, [16, 2, 4096, 64], kernel)), "17 MB of one head");
    assert!(in_tiles(causal_plan(&DeviceSpec::H200, [2, 8, 128, 64], kernel)), "one tile");
    // 132 SMs.
    assert!(in_tiles(causal_plan(&DeviceSpec::H200, [1, 1, 132 * 128, 64], kernel)), "a block an SM");
    assert!(!in_tiles(causal_plan(&DeviceSpec::H200, [1, 1, 133 * 128, 64], kernel)));
    let short = causal_plan(&DeviceSpec::H200, [1, 8, 512, 64], "fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1");
    assert!(in_tiles(short), "128 blocks");
    assert!(in_tiles(causal_plan(&DeviceSpec::H200, [1, 1, 65536 * 128, 64], kernel)), "z ends at 65535");
    let full = Problem::contiguous(DType::Bf16, [2, 8, 8, 2048, 2048, 64]);
    let plan = |name| Plan::with_kernel(&full, &DeviceSpec::H200, Kernel::parse(name).unwrap()).unwrap();
    assert!(in_tiles(plan(kernel)));
    assert!(in_tiles(causal_plan(&DeviceSpec::H200, [2, 8, 2048, 64], "fwd_scalar_bf16")));
}

/// Whether a kernel is one for Hopper.
fn is_hopper(kernel: Kernel) -> bool {
    matches!(kernel, Kernel::FwdSm90(_))
}

fn hopper(name: &str) -> Kernel {
    Kernel::parse(&format!("fwd_sm90_{name}")).unwrap()
}

#[test]
fn long_sequences_on_an_h200_go_to_persistent_blocks_and_on_other_devices_never() {
    for shape in [[2, 8, 8, 2048, 2048, 128], [4, 16, 16, 4096, 4096, 128], [4, 32, 8, 4096, 4096, 64]] {
        for (dtype, causal) in [(DType::F16, None), (DType::Bf16, Some(Causal::BottomRight))] {
            let problem = Problem::contiguous(dtype, shape).with_causal(causal);
            let plan = Plan::new(&problem, &DeviceSpec::H200).unwrap();
            assert!(is_hopper(plan.kernel), "{problem}: {plan}");
            assert_eq!((plan.grid, plan.axes()[0]), ([132, 1, 1], "persistent blocks"), "{plan}");
            for device in [DeviceSpec::L4, DeviceSpec::A100] {
                let candidates = Plan::candidates(&problem, &device).unwrap();
                assert!(!candidates.iter().any(|(kernel, _)| is_hopper(*kernel)), "{problem}");
            }
        }
    }
    let short = Plan::new(&Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64]), &DeviceSpec::H200).unwrap();
    assert!(!is_hopper(short.kernel), "{short}");
}

#[test]
fn a_kernel_for_hopper_is_refused_by_name_on_devices_before_and_after() {
    let kernel = hopper("bf16_d128_q128_kv128_s2");
    let problem = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 128]);
    let later = |compute_capability| DeviceSpec { compute_capability, ..DeviceSpec::H200 };
    for device in [DeviceSpec::L4, DeviceSpec::A100, later(100), later(103), later(120)] {
        let error = Plan::with_kernel(&problem, &device, kernel).unwrap_err().to_string();
        let found = format!("device: compute capability {} is not supported", device.compute_capability);
        assert_eq!(error, format!("{found}, allowed: 90 for {kernel}"));
        assert!(Plan::new(&problem, &device).is_ok());
    }
}

#[test]
fn long_calls_go_to_clusters_whose_blocks_walk_the_same_keys() {
    let full = Problem::contiguous(DType::Bf16, [4, 16, 16, 4096, 4096, 128]);
    let shared = Problem::contiguous(DType::Bf16, [4, 32, 8, 4096, 4096, 128]);
    let is_alone = |plan: &Plan| matches!(plan.kernel, Kernel::FwdSm90(config) if config.is_alone());
    let causal = |problem: Problem| problem.with_causal(Some(Causal::BottomRight));
    for (problem, together, takes_tickets) in [
        (full, 1, false),
        (full.with_kv_lens(true), 1, true),
        (causal(full), 1, true),
        (shared, 2, false),
        (causal(shared), 2, true),
    ] {
        let plan = Plan::new(&problem, &DeviceSpec::H200).unwrap();
        assert!(is_hopper(plan.kernel) && !is_alone(&plan), "{problem}: {plan}");
        assert_eq!((plan.grid, plan.tiles.unwrap().heads_together), ([132, 1, 1], together), "{plan}");
        assert_eq!(plan.workspace_bytes() > 0, takes_tickets, "tiles of one length are not shared out: {plan}");
        let [q, k, v, _] = plan.tensors().unwrap();
        assert_eq!([q, k, v].map(|tensor| tensor.box_rows), [128, 64, 64], "a block copies half of the keys");
    }
    // Those of one tile for each SM gain nothing from it.
    let short = Problem::contiguous(DType::Bf16, [1, 8, 8, 2048, 2048, 128]);
    let plan = Plan::new(&short, &DeviceSpec::H200).unwrap();
    assert!(is_alone(&plan), "{plan}");
    // An odd number of tiles has one more, without rows, and an odd number of SMs one that is left alone.
    let kernel = hopper("bf16_d128_q128_kv128_s2_c2");
    let odd = Problem::contiguous(DType::Bf16, [1, 3, 3, 300, 500, 128]);
    for (sm_count, blocks) in [(132, 12), (7, 6), (1, 2)] {
        let plan = Plan::with_kernel(&odd, &DeviceSpec { sm_count, ..DeviceSpec::H200 }, kernel).unwrap();
        assert_eq!((plan.grid, plan.tiles.unwrap().count), ([blocks, 1, 1], 3 * 2), "{plan}");
    }
}

#[test]
fn what_no_tensor_map_can_say_is_refused_with_field_and_value() {
    let kernel = hopper("bf16_d128_q128_kv128_s2");
    let refused = |problem: Problem| {
        assert!(Plan::new(&problem, &DeviceSpec::H200).is_ok(), "another kernel takes {problem}");
        Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap_err().to_string()
    };
    let good = Problem::contiguous(DType::Bf16, [2, 8, 8, 300, 500, 128]);
    let error = refused(Problem::contiguous(DType::Bf16, [2, 8, 8, 300, 0, 128]));
    assert_eq!(error, format!("kv_len: 0 is not supported, allowed: 1 or more for {kernel}"));
    let [batch, head, row, column] = good.v.strides();
    for (axis, strides) in
        [("batch", [0, head, row, column]), ("heads", [batch, 0, row, column]), ("seq", [batch, head, 0, column])]
    {
        let v = Layout::strided(&good.v.shape(), &strides).unwrap();
        let error = refused(Problem { v, ..good });
        let value = format!("v: a stride of 0 bytes along {axis} cannot be addressed");
        assert_eq!(error, format!("{value}, allowed: multiples of 16 bytes for {kernel}"));
    }
    let error = refused(Problem::contiguous(DType::Bf16, [2, 8, 8, 300, 500, 64]));
    assert_eq!(error, format!("head_dim: 64 is not supported, allowed: 104 to 128 for {kernel}"));
    let many = Problem::contiguous(DType::Bf16, [1, 512, 1, 1 << 29, 16, 128]);
    let rows = Layout::bshd(many.q.shape());
    let error = refused(Problem { q: rows, ..many.with_out(rows) });
    assert!(error.starts_with("q_len: 536870912 is not supported, allowed: at most 1073741824 tiles"), "{error}");
}

#[test]
fn persistent_blocks_need_a_counter_exactly_where_they_take_more_than_one_tile_of_unequal_ones() {
    let kernel = hopper("bf16_d128_q128_kv128_s2");
    let addresses = DevicePointers { q: 4096, k: 8192, v: 12288, out: 16384, ..DevicePointers::default() };
    let causal = Some(Causal::TopLeft);
    for (heads, mask, blocks, bytes) in
        [(33, causal, 132, 0), (34, causal, 132, 65536), (34, None, 132, 0), (3, causal, 12, 0)]
    {
        let problem = Problem::contiguous(DType::Bf16, [1, heads, heads, 512, 512, 128]).with_causal(mask);
        let plan = Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap();
        assert_eq!((plan.grid, plan.workspace_bytes()), ([blocks, 1, 1], bytes), "{plan}");
        assert_eq!(plan.tiles.unwrap().count, 4 * heads as u32, "{plan}");
        let with_workspace = DevicePointers { workspace: 1 << 20, ..addresses };
        assert_eq!(plan.bind(&addresses).is_ok(), bytes == 0);
        assert_eq!(plan.bind(&with_workspace).is_ok(), bytes > 0);
    }
    let empty = Problem::contiguous(DType::Bf16, [0, 8, 8, 512, 512, 128]);
    assert!(Plan::with_kernel(&empty, &DeviceSpec::H200, kernel).unwrap().is_empty());
}

#[test]
fn tiles_of_unequal_length_come_longest_first_in_groups_of_a_tile_for_every_other_sm() {
    let kernel = hopper("bf16_d128_q128_kv128_s2");
    let tiles = |shape, causal| {
        let problem = Problem::contiguous(DType::Bf16, shape).with_causal(causal);
        Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap().tiles.unwrap()
    };
    let causal = Some(Causal::BottomRight);
    // Slices have 32 tiles: three of them have one for every other of 132 SMs, and 64 slices are 21 groups of four at most.
    assert_eq!(tiles([4, 16, 16, 4096, 4096, 128], causal).group, 4);
    // All that there are where SMs have few tiles, and one without a mask.
    assert_eq!(tiles([1, 8, 8, 2048, 2048, 128], causal).group, 8);
    assert_eq!(tiles([4, 16, 16, 4096, 4096, 128], None).group, 1);
    let order = tiles([4, 16, 16, 4096, 4096, 128], causal);
    let group: Vec<_> = (0..4 * 32).map(|index| order.get(index)).collect();
    assert!(group.is_sorted_by_key(|(tile, _)| std::cmp::Reverse(*tile)) && group.iter().all(|(_, slice)| *slice < 4));
    // Two tiles for each SM are 9 slices: the last of the groups has 64 - 13 * 4.
    assert_eq!((order.last, order.last_group), (13 * 4, 12));
    let last: Vec<_> = (13 * 4 * 32..order.count).map(|index| order.get(index)).collect();
    assert!(last.is_sorted_by_key(|(tile, _)| std::cmp::Reverse(*tile)) && last.iter().all(|(_, slice)| *slice >= 52));
}

#[test]
fn decoding_streams_the_keys_of_a_sequence_through_one_block_an_sm() {
    for (batch, kv_len, splits) in [(16, 8192, 1), (1, 32768, 16)] {
        let problem = Problem::contiguous(DType::Bf16, [batch, 32, 8, 1, kv_len, 128]);
        let plan = Plan::new(&problem, &DeviceSpec::H200).unwrap();
        assert_eq!(plan.kernel.to_string(), "decode_bf16_d128_q16_kv32_w4_s3", "{problem}");
        assert_eq!((plan.grid, plan.splits.count), ([splits, 8, batch as u32], splits), "{problem}");
        assert_eq!(plan.axes(), ["row tiles x splits", "key heads", "batch"]);
    }
}

/// The least predicted times of kernels whose blocks may share keys, and of those that have all keys of a row in one
/// block; and how many parts the former have.
fn with_and_without_sharing(problem: &Problem, device: &DeviceSpec) -> (f64, f64, u32) {
    let candidates = Plan::candidates(problem, device).unwrap();
    let shares = |kernel: &Kernel| matches!(kernel, Kernel::FwdSm80(config) if config.shares_keys);
    let (shared, time) = candidates.iter().find(|(kernel, _)| shares(kernel)).unwrap();
    let (_, other) = candidates.iter().find(|(kernel, _)| !shares(kernel)).unwrap();
    (time.total(), other.total(), Plan::with_kernel(problem, device, *shared).unwrap().splits.count)
}

#[test]
fn an_l4_loses_more_by_a_merge_than_its_sms_wait_for_each_other_on_512_keys() {
    for (batch, causal) in
        [1, 2].into_iter().flat_map(|batch| [None, Some(Causal::BottomRight)].map(|mask| (batch, mask)))
    {
        let problem = Problem::contiguous(DType::Bf16, [batch, 8, 8, 512, 512, 64]).with_causal(causal);
        let (shared, other, count) = with_and_without_sharing(&problem, &DeviceSpec::L4);
        assert!(shared >= other, "{problem}: {shared} us against {other}");
        assert_eq!(count, 1, "{problem}");
        let plan = Plan::new(&problem, &DeviceSpec::L4).unwrap();
        assert_eq!((plan.splits.count, plan.workspace_bytes()), (1, 0), "{problem}: {plan}");
    }
}

#[test]
fn blocks_share_keys_where_few_query_rows_see_many() {
    for (shape, parts) in [([1, 8, 8, 64, 16384, 64], 14), ([1, 8, 8, 128, 8192, 128], 7)] {
        let problem = Problem::contiguous(DType::F16, shape);
        let (shared, other, count) = with_and_without_sharing(&problem, &DeviceSpec::L4);
        assert!(shared < 0.75 * other, "{problem}: {shared} us against {other}");
        let plan = Plan::new(&problem, &DeviceSpec::L4).unwrap();
        assert!(plan.kernel.to_string().ends_with("_b"), "{plan}");
        assert_eq!((plan.splits.count, count), (parts, parts), "{plan}");
        let (blocks, sm_count) = (plan.grid.iter().product::<u32>(), DeviceSpec::L4.sm_count);
        assert!(blocks.next_multiple_of(sm_count) - blocks < 5, "few SMs have a block less than others: {plan}");
    }
}

#[test]
fn a_kernel_whose_blocks_share_keys_is_never_chosen_where_it_is_predicted_slower_or_does_not_split() {
    let lengths = [1, 64, 100, 512, 2048].into_iter().flat_map(|q| [64, 512, 4096, 30000].map(|kv| (q, kv)));
    for (device, (q_len, kv_len)) in lengths.flat_map(|lengths| DEVICES.map(|device| (device, lengths))) {
        for (batch, head_dim, causal) in [(1, 64, None), (3, 128, Some(Causal::BottomRight)), (9, 64, None)] {
            let shape = [batch, 8, 2, q_len, kv_len, head_dim];
            let problem = Problem::contiguous(DType::Bf16, shape).with_causal(causal);
            let plan = Plan::new(&problem, &device).unwrap();
            if plan.kernel.to_string().ends_with("_b") {
                let (shared, other, count) = with_and_without_sharing(&problem, &device);
                assert!(shared <= other && count > 1, "{plan}: {shared} us against {other}");
            }
        }
    }
}

#[test]
fn more_parts_of_the_keys_than_a_grid_has_room_for_are_refused() {
    let problem = Problem::contiguous(DType::Bf16, [1, 32, 1, 2047, 1 << 29, 128]);
    let kernel = Kernel::parse("decode_bf16_d128_q16_kv16_w4_s2").unwrap();
    let plan = Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap();
    assert_eq!(plan.grid, [4094, 1, 1]);
    let most = i32::MAX as u32 / 4094;
    let [x, ..] = plan.with_splits(most / 2).unwrap().grid;
    assert!(x.is_multiple_of(4094) && x <= i32::MAX as u32, "{x}");
    let error = plan.with_splits(u32::MAX).unwrap_err().to_string();
    assert!(error.ends_with(&format!("allowed: at most {most} for 4094 tiles of rows of a head")), "{error}");
}

#[test]
fn kernels_of_16_bit_inputs_refuse_e4m3_and_its_scales() {
    let plain = Problem::contiguous(DType::F16, [2, 8, 2, 300, 500, 64]);
    let problem = plain.with_fp8(Some(Fp8::uniform(ScaleBlocks::Rows(64))));
    let plain_inputs = |kernel: &&Kernel| kernel.dtype() == DType::F16 && !kernel.takes_e4m3();
    for kernel in KERNELS.iter().filter(plain_inputs) {
        let error = Plan::with_kernel(&problem, &DeviceSpec::H200, *kernel).unwrap_err().to_string();
        let allowed = format!("allowed: inputs of type f16 for {kernel}");
        assert!(error.starts_with("fp8: e4m3 inputs is not supported, ") && error.ends_with(&allowed), "{error}");
    }
    let plan = Plan::new(&plain, &DeviceSpec::H200).unwrap();
    let workspace = if plan.workspace_bytes() > 0 { 1 << 20 } else { 0 };
    let good = DevicePointers { q: 16, k: 32, v: 48, out: 64, workspace, ..DevicePointers::default() };
    assert!(plan.bind(&good).is_ok());
    for (field, scales) in [
        ("q_scales", DevicePointers { q_scales: 256, ..good }),
        ("k_scales", DevicePointers { k_scales: 256, ..good }),
        ("v_scales", DevicePointers { v_scales: 256, ..good }),
    ] {
        let error = plan.bind(&scales).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}: address 0x100 cannot be addressed, allowed: null")), "{error}");
    }
}

#[test]
fn e4m3_inputs_go_to_kernels_of_their_own_where_the_device_has_the_instruction() {
    let fp8 = Some(Fp8 { q: ScaleBlocks::Tensor, k: ScaleBlocks::Rows(64), v: ScaleBlocks::Head });
    let problem = |head_dim| Problem::contiguous(DType::Bf16, [2, 8, 2, 300, 500, head_dim]).with_fp8(fp8);
    for device in [DeviceSpec::L4, DeviceSpec::H200] {
        for (head_dim, columns) in [(16, 64), (64, 64), (80, 128), (128, 128), (144, 192), (208, 256), (256, 256)] {
            let plan = Plan::new(&problem(head_dim), &device).unwrap();
            assert!(matches!(plan.kernel, Kernel::FwdFp8(c) if c.head_dim == columns), "{plan}");
        }
    }
    let error = Plan::new(&problem(64), &DeviceSpec::A100).unwrap_err().to_string();
    assert!(error.starts_with("device: compute capability 80 is not supported, allowed: 89 or later"), "{error}");
    let kernel = Plan::new(&problem(64), &DeviceSpec::L4).unwrap().kernel;
    let plain = problem(64).with_fp8(None);
    let error = Plan::with_kernel(&plain, &DeviceSpec::L4, kernel).unwrap_err().to_string();
    assert!(
        error.starts_with("fp8: bf16 inputs is not supported, allowed: e4m3 inputs for fwd_fp8_bf16_d64"),
        "{error}"
    );
}

#[test]
fn e4m3_inputs_go_to_hopper_s_own_instructions_where_a_step_of_keys_has_one_scale() {
    let contiguous = Problem::contiguous(DType::Bf16, [4, 16, 4, 4000, 4000, 128]);
    let problem = |k, v| contiguous.with_fp8(Some(Fp8 { q: ScaleBlocks::Rows(64), k, v }));
    let (head, few, enough) = (ScaleBlocks::Head, ScaleBlocks::Rows(64), ScaleBlocks::Rows(128));
    let plan = Plan::new(&problem(head, enough), &DeviceSpec::H200).unwrap();
    assert!(matches!(plan.kernel, Kernel::FwdSm90(config) if config.e4m3), "{plan}");
    // Behind the counters the values of 4 x 4 heads, of 128 columns and 32 steps.
    assert_eq!(plan.workspace_bytes(), 65536 + 16 * 128 * 32 * 128);
    let kernel = plan.kernel;
    for (field, problem) in [("k_scales", problem(few, head)), ("v_scales", problem(enough, few))] {
        let plan = Plan::new(&problem, &DeviceSpec::H200).unwrap();
        assert!(matches!(plan.kernel, Kernel::FwdFp8(_)), "{plan}");
        let error = Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap_err().to_string();
        let expected = format!("{field}: a scale for 64 rows is not supported, allowed: for 128 or more for {kernel}");
        assert_eq!(error, expected);
    }
    let error = Plan::with_kernel(&problem(head, head), &DeviceSpec::L4, kernel).unwrap_err().to_string();
    assert!(
        error.starts_with("device: compute capability 89 is not supported, allowed: 90 for fwd_fp8_sm90"),
        "{error}"
    );
}

#[test]
fn e4m3_inputs_need_their_scales_and_bind_with_them() {
    let problem =
        Problem::contiguous(DType::Bf16, [2, 8, 2, 300, 500, 64]).with_fp8(Some(Fp8::uniform(ScaleBlocks::Head)));
    let plan = Plan::new(&problem, &DeviceSpec::L4).unwrap();
    let tensors = DevicePointers { q: 16, k: 32, v: 48, out: 64, ..DevicePointers::default() };
    let good = DevicePointers { q_scales: 256, k_scales: 260, v_scales: 264, ..tensors };
    assert!(plan.bind(&good).is_ok());
    for (field, scales) in [
        ("q_scales", DevicePointers { q_scales: 0, ..good }),
        ("k_scales", DevicePointers { k_scales: 0, ..good }),
        ("v_scales", DevicePointers { v_scales: 0, ..good }),
    ] {
        assert!(plan.bind(&scales).unwrap_err().to_string().starts_with(&format!("{field}: address 0x0")));
    }
    // Elements of inputs are one byte, of the output two.
    assert_eq!([plan.params.q_stride.row, plan.params.k_stride.row, plan.params.out_stride.row], [4, 4, 8]);
}
