//! Runs pieces of PTX and hands back what came out.

use ptx_sim::{
    Buffer, Delivery, Device, Finding, Kind, Launch, LaunchError, Module, Options, Reconvergence, Report, Swizzle,
    TensorMap, WarpOrder,
};
use std::fmt::Debug;

/// The first lines of a text.
pub const HEADER: &str = ".version 8.7\n.target sm_90a\n.address_size 64\n";

/// A kernel around a few instructions. They find the registers `%t` (the thread of the block), `%lane`, `%warp`, `%cta`,
/// the address `%in` of the input, the address `%out` of 16 bytes of their own for results, and `%p<8>`, `%h<16>`,
/// `%r<32>`, `%f<16>`, `%d<16>` to use freely.
#[derive(Clone)]
pub struct Kernel {
    body: String,
    module: String,
    input: Vec<u8>,
    grid: [u32; 3],
    block: [u32; 3],
    cluster: Option<[u32; 3]>,
    shared: u32,
    options: Options,
    maps: Vec<Map>,
    changes: Vec<(String, String)>,
}

/// A tensor of the input or the results, for [`TensorMap::new`].
#[derive(Clone, Debug)]
pub struct Map {
    pub of_results: bool,
    pub element_bytes: u32,
    pub dims: Vec<u64>,
    pub strides: Vec<u64>,
    pub tile: Vec<u32>,
    pub swizzle: Swizzle,
}

/// A kernel of one warp.
pub fn kernel(body: &str) -> Kernel {
    let (body, module, input) = (body.to_owned(), String::new(), Vec::new());
    Kernel {
        body,
        module,
        input,
        grid: [1, 1, 1],
        block: [32, 1, 1],
        cluster: None,
        shared: 0,
        options: Options::default(),
        maps: vec![],
        changes: vec![],
    }
}

impl Kernel {
    /// Text in front of the entry point.
    pub fn module(mut self, text: &str) -> Self {
        self.module = text.to_owned();
        self
    }

    pub fn input(mut self, values: &[u32]) -> Self {
        self.input = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self
    }

    pub fn threads(mut self, threads: u32) -> Self {
        self.block = [threads, 1, 1];
        self
    }

    pub fn block(mut self, block: [u32; 3]) -> Self {
        self.block = block;
        self
    }

    pub fn blocks(mut self, blocks: u32) -> Self {
        self.grid = [blocks, 1, 1];
        self
    }

    pub fn grid(mut self, grid: [u32; 3]) -> Self {
        self.grid = grid;
        self
    }

    /// Blocks of a cluster, as the launch gives them.
    pub fn cluster(mut self, cluster: [u32; 3]) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Dynamic shared memory, which the body knows as `dynamic`.
    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }

    pub fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// The same in each order of warps, with each delivery.
    pub fn schedules(&self) -> impl Iterator<Item = Self> {
        let meeting = self.options.reconvergence;
        self.orders([(Delivery::Late, meeting), (Delivery::Immediate, meeting)])
    }

    /// As [`Kernel::schedules`], the lanes of warps meeting again early with one delivery and late with the other.
    pub fn schedules_of_lanes(&self) -> impl Iterator<Item = Self> {
        self.orders([(Delivery::Late, Reconvergence::Early), (Delivery::Immediate, Reconvergence::Late)])
    }

    fn orders(&self, ways: [(Delivery, Reconvergence); 2]) -> impl Iterator<Item = Self> {
        [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random].into_iter().flat_map(move |order| {
            ways.map(|(delivery, meeting)| {
                self.clone().options(|options| {
                    (options.warp_order, options.delivery, options.reconvergence) = (order, delivery, meeting);
                })
            })
        })
    }

    /// A tensor map, which the body finds at the generic address in `%map0`, `%map1`, ...
    pub fn map(mut self, map: Map) -> Self {
        self.maps.push(map);
        self
    }

    /// The same with another text, made from its own.
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text().contains(from), "{from}");
        self.changes.push((from.to_owned(), to.to_owned()));
        self
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let changed = |text: String, (from, to): &(String, String)| text.replace(from, to);
        self.changes.iter().fold(self.plain_text(), changed)
    }

    fn plain_text(&self) -> String {
        let Self { module, body, maps, .. } = self;
        let params: String = (0..maps.len()).map(|i| format!(", .param .align 64 .b8 tensor{i}[128]")).collect();
        let loads: String = (0..maps.len())
            .map(|i| format!(".reg .b64 %map{i}; mov.b64 %map{i}, tensor{i}; cvta.param.u64 %map{i}, %map{i}; "))
            .collect();
        format!(
            "{HEADER}.file 1 \"kernel.rs\"\n.extern .shared .align 16 .b8 dynamic[];\n{module}
.visible .entry kernel(.param .u64 out, .param .u64 in{params})
{{
    .reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<32>; .reg .f32 %f<16>; .reg .b64 %d<16>;
    .reg .b32 %t, %lane, %warp, %cta, %thread; .reg .b64 %out, %in;
    mov.u32 %t, %tid.x; mov.u32 %lane, %laneid; mov.u32 %warp, %warpid; mov.u32 %cta, %ctaid.x;
    mov.u32 %thread, %ntid.x;
    mad.lo.u32 %thread, %cta, %thread, %t;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %thread, 16, %out;
    ld.param.u64 %in, [in]; {loads}
{body}
    ret;
}}
"
        )
    }

    pub fn run(&self) -> Run {
        self.run_on(&mut Device::new()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs it where everything that it does must be right.
    #[track_caller]
    pub fn clean(&self) -> Run {
        let run = self.run();
        assert!(run.report.is_clean(), "{}", run.report);
        run
    }

    pub fn run_on(&self, device: &mut Device) -> Result<Run, LaunchError> {
        let text = self.text();
        let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
        let threads = self.grid.iter().chain(&self.block).product::<u32>() as usize;
        let (out, input) = (device.upload(&vec![0; 16 * threads]), device.upload(&self.input));
        let mut params: Vec<u8> = [out, input].iter().flat_map(|buffer| buffer.address().to_le_bytes()).collect();
        for map in &self.maps {
            let address = if map.of_results { out } else { input }.address();
            let Map { element_bytes, dims, strides, tile, swizzle, .. } = map;
            let map = TensorMap::new(address, *element_bytes, dims, strides, tile, *swizzle);
            params.resize(params.len().next_multiple_of(64), 0);
            params.extend(map.unwrap_or_else(|error| panic!("{error}")).encode());
        }
        let Self { grid, block, cluster, shared, options, .. } = *self;
        let launch = Launch { entry: "kernel", grid, block, cluster, shared_bytes: shared, params: &params, options };
        let report = device.launch(&module, &launch)?;
        Ok(Run { report, out: words(device, out), input: words(device, input), text })
    }
}

/// The words of a buffer.
pub fn words(device: &Device, buffer: Buffer) -> Vec<u32> {
    let bytes = device.download(buffer).expect("the buffer is there");
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// What a kernel left behind.
pub struct Run {
    pub report: Report,
    /// Four words a thread.
    pub out: Vec<u32>,
    /// The input afterwards.
    pub input: Vec<u32>,
    text: String,
}

impl Run {
    /// The first word of every thread's results.
    pub fn results(&self) -> Vec<u32> {
        self.out.iter().step_by(4).copied().collect()
    }

    /// The results of one thread.
    pub fn of(&self, thread: usize) -> [u32; 4] {
        std::array::from_fn(|word| self.out[4 * thread + word])
    }

    /// The line that holds `mark`, from 1.
    #[track_caller]
    pub fn line(&self, mark: &str) -> u32 {
        line(&self.text, mark)
    }

    /// The only finding there is.
    #[track_caller]
    pub fn finding(&self, kind: Kind) -> &Finding {
        match self.report.findings.as_slice() {
            [finding] if finding.kind == kind => finding,
            _ => panic!("expected one finding, {kind}:\n{}", self.report),
        }
    }
}

/// In every schedule nothing is found, and each thread's first word is what is expected.
#[track_caller]
pub fn gives(kernel: &Kernel, expected: impl Fn(u32) -> u32) {
    for kernel in kernel.schedules() {
        let results = kernel.clean().results();
        assert_eq!(results, (0..results.len() as u32).map(&expected).collect::<Vec<_>>());
    }
}

/// The line of a text that holds `mark`, from 1.
#[track_caller]
pub fn line(text: &str, mark: &str) -> u32 {
    let mut lines = text.lines().zip(1..).filter(|(line, _)| line.contains(mark)).map(|(_, number)| number);
    match (lines.next(), lines.next()) {
        (Some(line), None) => line,
        _ => panic!("{mark} is not on exactly one line"),
    }
}

/// A value of a register.
pub trait Value: Copy + Debug + 'static {
    /// Bits of its register.
    const BITS: u32;
    /// Values at which instructions go wrong.
    fn edges() -> Vec<Self>;
    fn bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
    /// Whether both are the same; all NaN are.
    fn same(self, other: Self) -> bool {
        self.bits() == other.bits()
    }
}

macro_rules! integers {
    ($($ty:ty, $unsigned:ty;)*) => {$(
        impl Value for $ty {
            const BITS: u32 = <$ty>::BITS;

            fn edges() -> Vec<Self> {
                let small = (0..4).chain([7, 31, 32, 33, 63, 64, 100]);
                let powers = (0..Self::BITS).step_by(5).map(|bit| 1 << bit);
                let odd = [<$ty>::MAX, <$ty>::MIN, <$ty>::MAX - 1, <$ty>::MAX / 3, !<$ty>::MAX / 7, !0, !1, !41];
                small.chain(powers).chain(odd).collect()
            }

            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }

            fn from_bits(bits: u64) -> Self {
                bits as $ty
            }
        }
    )*};
}

integers! {
    u16, u16;
    i16, u16;
    u32, u32;
    i32, u32;
    u64, u64;
    i64, u64;
}

macro_rules! floats {
    ($($ty:ty, $unsigned:ty;)*) => {$(
        impl Value for $ty {
            const BITS: u32 = <$unsigned>::BITS;

            fn edges() -> Vec<Self> {
                let numbers = [
                    0.0, 1.0, 1.5, 0.1, 0.5, 2.5, 3.5, 7.0, 1e-3, 123456.79, 2147483648.0, 4294967296.0, 1e19, 1e30,
                    <$ty>::MIN_POSITIVE, <$ty>::MIN_POSITIVE / 8.0, <$ty>::MAX, <$ty>::INFINITY, <$ty>::EPSILON,
                    <$ty>::from_bits(1),
                ];
                let both = numbers.into_iter().flat_map(|x: $ty| [x, -x]);
                both.chain([<$ty>::NAN, <$ty>::from_bits(<$ty>::INFINITY.to_bits() + 1)]).collect()
            }

            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }

            fn from_bits(bits: u64) -> Self {
                <$ty>::from_bits(bits as $unsigned)
            }

            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
            }
        }
    )*};
}

floats! {
    f32, u32;
    f64, u64;
}

/// A predicate: 0 or 1 in a register of 32 bits.
impl Value for bool {
    const BITS: u32 = 32;

    fn edges() -> Vec<Self> {
        vec![false, true]
    }

    fn bits(self) -> u64 {
        self.into()
    }

    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

/// The operands of an instruction.
pub trait Operands: Copy + Debug {
    const BITS: &'static [u32];
    /// Every combination of edges.
    fn edges() -> Vec<Self>;
    fn bits(self) -> Vec<u64>;
}

impl<A: Value> Operands for (A,) {
    const BITS: &'static [u32] = &[A::BITS];

    fn edges() -> Vec<Self> {
        A::edges().into_iter().map(|a| (a,)).collect()
    }

    fn bits(self) -> Vec<u64> {
        vec![self.0.bits()]
    }
}

impl<A: Value, B: Value> Operands for (A, B) {
    const BITS: &'static [u32] = &[A::BITS, B::BITS];

    fn edges() -> Vec<Self> {
        A::edges().into_iter().flat_map(|a| B::edges().into_iter().map(move |b| (a, b))).collect()
    }

    fn bits(self) -> Vec<u64> {
        vec![self.0.bits(), self.1.bits()]
    }
}

impl<A: Value, B: Value, C: Value> Operands for (A, B, C) {
    const BITS: &'static [u32] = &[A::BITS, B::BITS, C::BITS];

    fn edges() -> Vec<Self> {
        let pairs = <(A, B)>::edges().into_iter();
        pairs.flat_map(|(a, b)| C::edges().into_iter().map(move |c| (a, b, c))).collect()
    }

    fn bits(self) -> Vec<u64> {
        vec![self.0.bits(), self.1.bits(), self.2.bits()]
    }
}

/// Runs an instruction for each of the operands. `code` is an opcode, or instructions that compute `%d` from `%a`, `%b`
/// and `%c`, with `%p`, `%q`, `%h<4>`, `%r<4>`, `%l<4>` to use freely.
#[track_caller]
pub fn compute<A: Operands, D: Value>(code: &str, operands: &[A]) -> Vec<D> {
    compute_with(code, operands, Options::default())
}

/// As [`compute`], simulated in another way.
#[track_caller]
pub fn compute_with<A: Operands, D: Value>(code: &str, operands: &[A], options: Options) -> Vec<D> {
    let rows: Vec<Vec<u64>> = operands.iter().map(|operands| operands.bits()).collect();
    compute_bits(code, A::BITS, D::BITS, &rows, options).into_iter().map(D::from_bits).collect()
}

#[track_caller]
fn compute_bits(code: &str, from: &[u32], to: u32, operands: &[Vec<u64>], options: Options) -> Vec<u64> {
    let names = &["%a", "%b", "%c"][..from.len()];
    let named = || names.iter().zip(from).zip(0..);
    let declared: String = named().map(|((name, bits), _)| format!(".reg .b{bits} {name}; ")).collect();
    let loaded: String =
        named().map(|((name, bits), i)| format!("ld.global.b{bits} {name}, [%in+{}]; ", 8 * i)).collect();
    let code = if code.contains(';') { code.to_owned() } else { format!("{code} %d, {};", names.join(", ")) };
    let text = format!(
        "{HEADER}
.visible .entry kernel(.param .u64 out, .param .u64 in, .param .u32 count)
{{
    .reg .pred %p, %q, %past; .reg .b16 %h<4>; .reg .b32 %r<4>, %thread, %count; .reg .b64 %l<4>, %in, %out;
    {declared}.reg .b{to} %d;
    mov.u32 %thread, %ctaid.x; mov.u32 %count, %tid.x;
    mad.lo.u32 %thread, %thread, 256, %count;
    ld.param.u32 %count, [count];
    setp.ge.u32 %past, %thread, %count;
    @%past ret;
    ld.param.u64 %in, [in]; mad.wide.u32 %in, %thread, 24, %in;
    ld.param.u64 %out, [out]; mad.wide.u32 %out, %thread, 8, %out;
    {loaded}
    {code}
    st.global.b{to} [%out], %d;
    ret;
}}
"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error} in {code}"));
    let mut device = Device::new();
    let rows = operands.iter().flat_map(|row| (0..3).map(|i| row.get(i).copied().unwrap_or(0)));
    let input = device.upload_read_only(&rows.flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    let out = device.upload(&vec![0; 8 * operands.len()]);
    let mut params: Vec<u8> = [out, input].iter().flat_map(|buffer| buffer.address().to_le_bytes()).collect();
    params.extend((operands.len() as u32).to_le_bytes());
    let grid = [operands.len().div_ceil(256) as u32, 1, 1];
    let launch =
        Launch { entry: "kernel", grid, block: [256, 1, 1], cluster: None, shared_bytes: 0, params: &params, options };
    let report = device.launch(&module, &launch).unwrap_or_else(|error| panic!("{error} in {code}"));
    assert!(report.is_clean(), "{report}");
    let bytes = device.download(out).expect("the buffer is there");
    bytes.as_chunks().0.iter().map(|long| u64::from_le_bytes(*long)).collect()
}

/// Checks an instruction at every combination of edges.
#[track_caller]
pub fn check<A: Operands, D: Value>(code: &str, expected: impl Fn(A) -> D) {
    check_at(code, &A::edges(), expected);
}

/// Checks an instruction at these operands.
#[track_caller]
pub fn check_at<A: Operands, D: Value>(code: &str, operands: &[A], expected: impl Fn(A) -> D) {
    for (operands, found) in operands.iter().zip(compute::<A, D>(code, operands)) {
        let expected = expected(*operands);
        assert!(found.same(expected), "{code} {operands:x?}: {found:x?}, expected {expected:x?}");
    }
}

/// Checks an instruction by a table.
#[track_caller]
pub fn table<A: Operands, D: Value>(code: &str, cases: &[(A, D)]) {
    let operands: Vec<A> = cases.iter().map(|(operands, _)| *operands).collect();
    for ((operands, expected), found) in cases.iter().zip(compute::<A, D>(code, &operands)) {
        assert!(found.same(*expected), "{code} {operands:x?}: {found:x?}, expected {expected:x?}");
    }
}

/// Checks a comparison: `how` is what follows `setp.`.
#[track_caller]
pub fn compares<A: Operands>(how: &str, holds: impl Fn(A) -> bool) {
    check(&format!("setp.{how} %p, %a, %b; selp.b32 %d, 1, 0, %p;"), holds);
}

/// The error of a text whose body is one instruction.
#[track_caller]
pub fn refused(instruction: &str) -> String {
    let kernel = kernel(instruction);
    let text = kernel.text();
    match Module::parse(&text) {
        Ok(_) => panic!("{instruction} is accepted"),
        Err(error) => {
            assert_eq!(error.line, line(&text, instruction), "{error}");
            error.message
        }
    }
}
