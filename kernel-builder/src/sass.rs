//! Reading machine code (SASS) that nvdisasm wrote out, and finding the loop in which a kernel spends its time.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A machine instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// Where it lies, bytes from the start of the code.
    pub address: u64,
    /// Whether a predicate decides if it is carried out.
    pub predicated: bool,
    /// Its name with all that is behind dots: `IMAD.MOV.U32`.
    pub opcode: &'a str,
    /// All operands: `R1, RZ, RZ, c[0x0][0x28]`.
    pub operands: &'a str,
}

impl<'a> Instruction<'a> {
    /// Reads a line such as `/*0260*/  @P2 BRA 0x3d0 ;`; `None` for a line without an instruction.
    fn parse(line: &'a str) -> Option<Self> {
        let (address, statement) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
        let statement = statement.split(';').next()?.trim();
        let (predicated, statement) = match statement.strip_prefix('@') {
            Some(rest) => (true, rest.split_once(' ')?.1.trim_start()),
            None => (false, statement),
        };
        let (opcode, operands) = statement.split_once(' ').unwrap_or((statement, ""));
        Some(Self { address: u64::from_str_radix(address, 16).ok()?, predicated, opcode, operands: operands.trim() })
    }

    /// The opcode up to the first dot.
    pub fn name(&self) -> &'a str {
        self.opcode.split('.').next().unwrap_or(self.opcode)
    }

    /// Where a jump goes.
    fn target(&self) -> Option<u64> {
        let target = self.operands.rsplit([',', ' ']).next()?.strip_prefix("0x")?;
        u64::from_str_radix(target, 16).ok()
    }

    /// The target of a jump that is taken at times or always, and whether the next instruction may come next.
    fn flow(&self) -> (Option<u64>, bool) {
        match self.name() {
            // Taken by a warp whose lanes have diverged, to code that does for some lanes what comes next for all.
            "BRA" if self.opcode.starts_with("BRA.DIV") => (None, true),
            // `BRA.U UP0, 0x3d0` has its condition among the operands.
            "BRA" | "JMP" => (self.target(), self.predicated || self.operands.contains(',')),
            "CALL" => (self.target(), true),
            "EXIT" | "RET" => (None, self.predicated),
            _ => (None, true),
        }
    }
}

/// The instructions in a text by `nvdisasm --binary`.
pub fn parse(text: &str) -> Vec<Instruction<'_>> {
    text.lines().filter_map(Instruction::parse).collect()
}

/// The instructions of the loop in which the kernel `code` spends its time: of the innermost loops that hold
/// instructions for which `is_core` is true, the one with most of those for which `is_hot` is, and the shortest of
/// several. So it is the unrolled loop and not the one for the rest of its steps; and where a kernel has one loop for the
/// steps with a mask and one for those without, which are more, it is the latter.
pub fn main_loop<'a>(
    code: &[Instruction<'a>],
    is_core: impl Fn(&Instruction) -> bool,
    is_hot: impl Fn(&Instruction) -> bool,
) -> Option<Vec<Instruction<'a>>> {
    let count = |body: &[bool], which: &dyn Fn(&Instruction) -> bool| {
        code.iter().zip(body).filter(|(instruction, inside)| **inside && which(instruction)).count()
    };
    let heat = |body: &[bool]| count(body, &is_hot);
    let loops = natural_loops(&Flow::of(code)).into_iter();
    let hot: Vec<_> = loops.filter(|(_, body)| count(body, &is_core) > 0).collect();
    let is_innermost = |head: usize, body: &[bool]| hot.iter().all(|(other, _)| *other == head || !body[*other]);
    let length = |body: &[bool]| body.iter().filter(|inside| **inside).count();
    let (_, body) = hot
        .iter()
        .filter(|(head, body)| is_innermost(*head, body))
        .max_by_key(|(_, body)| (heat(body), Reverse(length(body))))?;
    Some(code.iter().zip(body).filter(|(_, inside)| **inside).map(|(instruction, _)| *instruction).collect())
}

/// Which instruction may follow which, by index, as far as the first one leads there.
struct Flow {
    successors: Vec<Vec<usize>>,
    predecessors: Vec<Vec<usize>>,
}

impl Flow {
    fn of(code: &[Instruction]) -> Self {
        let index_of = |address| code.binary_search_by_key(&address, |instruction| instruction.address).ok();
        let successors: Vec<Vec<usize>> = (0..code.len())
            .map(|index| {
                let (target, falls_through) = code[index].flow();
                let next = Some(index + 1).filter(|next| falls_through && *next < code.len());
                target.and_then(index_of).into_iter().chain(next).collect()
            })
            .collect();
        let mut predecessors = vec![Vec::new(); code.len()];
        let reachable = reach(&successors, 0, None);
        for (from, _) in reachable.iter().enumerate().filter(|(_, reached)| **reached) {
            for &to in &successors[from] {
                predecessors[to].push(from);
            }
        }
        Self { successors, predecessors }
    }
}

/// What can be reached from `start` by `edges` without a way through `wall`.
fn reach(edges: &[Vec<usize>], start: usize, wall: Option<usize>) -> Vec<bool> {
    let mut reached = vec![false; edges.len()];
    let mut open = vec![start];
    while let Some(index) = open.pop() {
        if index < edges.len() && Some(index) != wall && !reached[index] {
            reached[index] = true;
            open.extend(&edges[index]);
        }
    }
    reached
}

/// The natural loops by their heads: all that leads back to an instruction through which every way into it goes.
fn natural_loops(flow: &Flow) -> BTreeMap<usize, Vec<bool>> {
    let mut loops = BTreeMap::<usize, Vec<bool>>::new();
    for head in 0..flow.predecessors.len() {
        let tails: Vec<_> = flow.predecessors[head].iter().copied().filter(|tail| *tail >= head).collect();
        if tails.is_empty() {
            continue;
        }
        // A jump back from code that lies out of line closes no loop: its target is reached in another way as well.
        let beside = reach(&flow.successors, 0, Some(head));
        for tail in tails.into_iter().filter(|tail| !beside[*tail]) {
            let body = loops.entry(head).or_insert_with(|| vec![false; flow.predecessors.len()]);
            body[head] = true;
            let leads_back = reach(&flow.predecessors, tail, Some(head));
            body.iter_mut().zip(leads_back).for_each(|(inside, leads)| *inside |= leads);
        }
    }
    loops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fwd_sm80_bf16_d64_q64_kv64_w4_s1` on sm_89, most lines left out: the loop with a mask at 0fc0, the one without
    /// at 2d70.
    const FORWARD: &str = "\
\t.headerflags\t@\"EF_CUDA_64BIT_ADDRESS EF_CUDA_SM89 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM89)\"
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0d50*/              @!P1 BRA 0x2c10 ;
        /*0fc0*/                   LDSM.16.M88.4 R92, [R105+0x2000] ;
        /*1100*/                   HMMA.16816.F32.BF16 R72, R16, R74, R8 ;
        /*19d0*/                   FSEL R99, R99, -INF , P2 ;
        /*1c40*/              @!P1 BRA 0x1de0 ;
        /*1dc0*/                   LDGSTS.E.BYPASS.LTC128B.128 [R114+0x3800], [R10.64], P5 ;
        /*1de0*/                   LDSM.16.MT88.4 R56, [R104+0x4000] ;
        /*2bf0*/              @!P1 CALL.REL.NOINC 0x2c10 ;
        /*2c00*/                   BRA 0xfc0 ;
        /*2c10*/                   ISETP.NE.U32.AND P1, PT, R80, RZ, PT ;
        /*2c20*/              @!P1 BRA 0x4400 ;
        /*2d70*/                   LDSM.16.M88.4 R4, [R109+0x2000] ;
        /*2e10*/                   HMMA.16816.F32.BF16 R92, R12.reuse, R4, RZ ;
        /*3460*/              @!P0 BRA 0x3600 ;
        /*35f0*/                   LDGSTS.E.BYPASS.LTC128B.128 [R114+0x3800], [R52.64], P5 ;
        /*3600*/                   LDSM.16.MT88.4 R52, [R108+0x4000] ;
        /*41b0*/              @!P0 BRA 0x4400 ;
        /*43f0*/                   BRA 0x2d70 ;
        /*4400*/                   SHFL.BFLY PT, R5, R70, 0x1, 0x1f ;
        /*53c0*/                   EXIT ;
        /*53d0*/                   BRA 0x53d0;
        /*53e0*/                   NOP;
";

    /// `mma_rate_f16` on sm_90, some lines left out: ptxas unrolls the loop at 0500, and 08d0 takes the steps that are
    /// left over.
    const UNROLLED: &str = "\
        /*04e0*/              @!P1 BRA 0x750 ;
        /*04f0*/                   PLOP3.LUT P0, PT, PT, PT, PT, 0x8, 0x0 ;
        /*0500*/                   HMMA.16816.F32 R36, R4, R2, R36 ;
        /*0510*/                   VIADD R40, R40, 0xfffffffc ;
        /*0530*/                   ISETP.GT.AND P1, PT, R40, 0x3, PT ;
        /*05a0*/                   HMMA.16816.F32 R36, R4.reuse, R2.reuse, R36 ;
        /*0620*/                   HMMA.16816.F32 R36, R4.reuse, R2.reuse, R36 ;
        /*06a0*/                   HMMA.16816.F32 R36, R4.reuse, R2.reuse, R36 ;
        /*0740*/               @P1 BRA 0x500 ;
        /*0750*/                   ISETP.GT.AND P1, PT, R40, 0x1, PT ;
        /*08c0*/              @!P0 BRA 0x9a0 ;
        /*08d0*/                   IADD3 R40, R40, -0x1, RZ ;
        /*08e0*/                   HMMA.16816.F32 R36, R4, R2, R36 ;
        /*08f0*/                   ISETP.NE.U32.AND P0, PT, R40, RZ, PT ;
        /*0990*/               @P0 BRA 0x8d0 ;
        /*09a0*/                   FADD R36, R36, R37 ;
        /*0bf0*/                   EXIT ;
";

    /// `fwd_scalar_f16` on sm_90, most lines left out: a loop in a loop, and code out of line for diverged warps.
    const NESTED: &str = "\
        /*00a0*/               @P0 EXIT ;
        /*05a0*/                   LOP3.LUT R15, R7, 0x1f, R34, 0xf8, !PT ;
        /*0ff0*/                   BRA.DIV UR4, 0x1760 ;
        /*1000*/                   SHFL.BFLY PT, R13, R0, 0x1, 0x1f ;
        /*1090*/                   FMNMX R17, R16, R17, !PT ;
        /*1170*/                   SHFL.IDX PT, R23, R24, R22, 0x1f ;
        /*12f0*/                   ISETP.NE.U32.AND P0, PT, R22, R12, PT ;
        /*1300*/               @P0 BRA 0x1170 ;
        /*1320*/                   FFMA R6, R25, R6, R24 ;
        /*1360*/              @!P0 BRA 0x5a0 ;
        /*1740*/                   STG.E desc[UR8][R2.64], R5 ;
        /*1750*/                   EXIT ;
        /*1760*/                   HFMA2.MMA R25, -RZ, RZ, 0, 1.847743988037109375e-06 ;
        /*17a0*/                   WARPSYNC.COLLECTIVE R22, 0x17d0 ;
        /*1970*/                   SHFL.BFLY P0, R17, R23, R24, R25 ;
        /*1980*/                   ENDCOLLECTIVE ;
        /*1990*/                   BRA 0x1090 ;
";

    /// First and last address of the main loop, by instructions of this name, and how many instructions it has.
    fn found(text: &str, name: &str) -> Option<(u64, u64, usize)> {
        let is_hot = |instruction: &Instruction| instruction.name() == name;
        let body = main_loop(&parse(text), is_hot, is_hot)?;
        Some((body.first()?.address, body.last()?.address, body.len()))
    }

    #[test]
    fn an_instruction_is_read_with_and_without_predicate_and_operands() {
        let read = |line| Instruction::parse(line).unwrap();
        let branch = read("        /*41b0*/              @!P0 BRA 0x4400 ;");
        assert_eq!(branch, Instruction { address: 0x41b0, predicated: true, opcode: "BRA", operands: "0x4400" },);
        let barrier = read("        /*4230*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;");
        assert_eq!((barrier.name(), barrier.predicated, barrier.operands), ("BAR", false, "0x0"));
        assert_eq!(read("        /*53e0*/                   NOP;").opcode, "NOP");
        assert_eq!(Instruction::parse("\t.headerflags\t@\"EF_CUDA_SM89\""), None);
    }

    #[test]
    fn the_main_loop_is_the_one_without_a_mask() {
        // With the copies that a branch skips, and with the branch out of the loop.
        assert_eq!(found(FORWARD, "HMMA"), Some((0x2d70, 0x43f0, 7)));
        assert_eq!(found(FORWARD, "FSEL"), Some((0x0fc0, 0x2c00, 8)));
    }

    #[test]
    fn the_main_loop_is_the_unrolled_one_and_not_the_one_for_the_rest() {
        assert_eq!(found(UNROLLED, "HMMA"), Some((0x0500, 0x0740, 7)));
    }

    #[test]
    fn the_main_loop_is_an_innermost_one_without_code_for_diverged_warps() {
        assert_eq!(found(NESTED, "SHFL"), Some((0x1170, 0x1300, 3)));
        assert_eq!(found(NESTED, "FFMA"), Some((0x05a0, 0x1360, 9)));
        assert_eq!(found(NESTED, "WARPSYNC"), None);
    }

    #[test]
    fn a_kernel_without_a_hot_loop_has_no_main_loop() {
        assert_eq!(found(FORWARD, "IMAD"), None);
        assert_eq!(found("", "HMMA"), None);
    }
}
