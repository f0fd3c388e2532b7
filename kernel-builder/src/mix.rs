//! The instructions of a loop by what they are for.

use crate::count::is_zero;
use crate::sass::Instruction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a machine instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Matrix products: HMMA.
    Tensor,
    /// Operands of matrix products from shared memory: LDSM.
    MatrixLoad,
    /// Exponentials, logarithms and reciprocals: MUFU.
    Special,
    /// f32 arithmetic, and that of packed f16: FFMA, FMUL, FADD, FMNMX.
    Float,
    /// Integer and address arithmetic, shifts and logic: IADD3, IMAD, LEA, LOP3, SHF.
    Integer,
    /// Copies of a register, a constant or a zero to a register: MOV, IMAD.MOV, CS2R.
    Move,
    /// One of two registers, or bytes of two: SEL, FSEL, PRMT.
    Select,
    /// From one type to another: F2FP, F2F, I2F.
    Convert,
    /// Shared memory: LDS, STS.
    Shared,
    /// Global memory, and copies from there to shared memory: LDG, STG, LDGSTS.
    Global,
    /// Between the lanes of a warp: SHFL, VOTE.
    Shuffle,
    /// Barriers and waits: BAR, DEPBAR, LDGDEPBAR, WARPSYNC.
    Barrier,
    /// Branches and predicates: BRA, ISETP, FSETP, PLOP3.
    Control,
    /// For the whole warp at once, on uniform registers: ULDC, UIADD3.
    Uniform,
    /// All else: S2R, LDC, NOP.
    Other,
}

impl Class {
    /// The classes whose growth in a main loop costs time. The others follow from these or are few.
    pub const GUARDED: [Self; 6] =
        [Self::Tensor, Self::MatrixLoad, Self::Special, Self::Float, Self::Integer, Self::Move];

    /// The class of an instruction.
    pub fn of(instruction: &Instruction) -> Self {
        match instruction.name() {
            "HMMA" | "IMMA" | "BMMA" | "DMMA" | "QMMA" | "HGMMA" | "IGMMA" | "QGMMA" => Self::Tensor,
            "LDSM" | "MOVM" => Self::MatrixLoad,
            "MUFU" => Self::Special,
            "MOV" | "CS2R" => Self::Move,
            "IMAD" | "HFMA2" if is_move(instruction) => Self::Move,
            "HADD2" if instruction.opcode == "HADD2.F32" => Self::Convert,
            "FFMA" | "FMUL" | "FADD" | "FMNMX" | "HFMA2" | "HMUL2" | "HADD2" | "HMNMX2" => Self::Float,
            "IADD3" | "IMAD" | "LOP3" | "SHF" | "LEA" | "IMNMX" | "VIADD" | "VIMNMX" | "VIADDMNMX" | "IABS"
            | "SGXT" | "BMSK" | "POPC" | "FLO" | "BREV" | "IDP" => Self::Integer,
            "SEL" | "FSEL" | "PRMT" => Self::Select,
            "F2FP" | "F2F" | "F2I" | "I2F" | "I2FP" | "FRND" | "I2I" => Self::Convert,
            "LDS" | "STS" | "ATOMS" => Self::Shared,
            "LDG" | "STG" | "LDGSTS" | "LD" | "ST" | "ATOMG" | "ATOM" | "RED" | "CCTL" => Self::Global,
            "SHFL" | "VOTE" | "MATCH" => Self::Shuffle,
            "BAR" | "DEPBAR" | "LDGDEPBAR" | "WARPSYNC" | "ENDCOLLECTIVE" | "MEMBAR" | "ERRBAR" | "SYNCS" | "B2R" => {
                Self::Barrier
            }
            "BRA" | "BRX" | "JMP" | "CALL" | "RET" | "EXIT" | "BSSY" | "BSYNC" | "BREAK" | "ISETP" | "FSETP"
            | "HSETP2" | "PLOP3" | "P2R" | "R2P" => Self::Control,
            "R2UR" | "REDUX" => Self::Uniform,
            name if name.starts_with('U') => Self::Uniform,
            _ => Self::Other,
        }
    }
}

/// Whether a multiplication and addition multiplies zero by zero: `IMAD.MOV.U32 R1, RZ, RZ, R2` copies R2, and
/// `HFMA2.MMA R1, -RZ, RZ, 0, 0` sets R1 to a constant.
fn is_move(instruction: &Instruction) -> bool {
    let mut factors = instruction.operands.split(", ").skip(1);
    [factors.next(), factors.next()].into_iter().all(|factor| matches!(factor, Some("RZ" | "-RZ")))
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The name in the manifest.
        self.serialize(f)
    }
}

/// How many instructions of each class a loop holds, in its text: those that a branch may skip are counted too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// All instructions.
    pub total: u32,
    /// MUFU between the first two waits for products of a warpgroup, where there are such waits: exponentials beside
    /// products.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hidden_exponentials: u32,
    /// Those of each class that is there.
    #[serde(flatten)]
    pub classes: BTreeMap<Class, u32>,
}

impl Mix {
    /// The mix of some instructions.
    pub fn of(code: &[Instruction]) -> Self {
        let mut mix = Self::default();
        let mut waits = 0;
        for instruction in code {
            waits += u32::from(instruction.opcode.starts_with("WARPGROUP.DEPBAR"));
            mix.hidden_exponentials += u32::from(waits == 1 && Class::of(instruction) == Class::Special);
            mix.total += 1;
            *mix.classes.entry(Class::of(instruction)).or_default() += 1;
        }
        mix
    }

    /// How many are of this class.
    pub fn count(&self, class: Class) -> u32 {
        self.classes.get(&class).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sass::parse;

    /// One line of each kind from `fwd_sm80_bf16_d64_q64_kv64_w4_s1` and `mma_rate_f16`, on sm_89 and sm_90.
    const LINES: &str = "\
        /*0000*/                   HMMA.16816.F32.BF16 R92, R12.reuse, R4, RZ ;
        /*0010*/                   LDSM.16.MT88.4 R52, [R108+0x4000] ;
        /*0020*/                   MUFU.EX2 R70, R52 ;
        /*0030*/                   FMNMX R53, R72, R73, !PT ;
        /*0040*/                   FFMA R71, R92, c[0x0][0x1c8], R111.reuse ;
        /*0050*/                   IMAD.WIDE.U32 R52, R55, c[0x0][0x1a4], R52 ;
        /*0060*/                   VIADD R40, R40, 0xfffffffc ;
        /*0070*/                   LEA.HI.X R52, R52, c[0x0][0x16c], R53, 0x4, P1 ;
        /*0080*/                   IMAD.MOV.U32 R53, RZ, RZ, R119 ;
        /*0090*/                   IMAD.U32 R52, RZ, RZ, UR6 ;
        /*00a0*/                   HFMA2.MMA R25, -RZ, RZ, 0, 1.847743988037109375e-06 ;
        /*00b0*/                   CS2R R38, SRZ ;
        /*00c0*/                   FSEL R99, R99, -INF , P2 ;
        /*00d0*/                   F2FP.BF16.F32.PACK_AB R76, R88, R71 ;
        /*00e0*/              @!PT LDS RZ, [RZ] ;
        /*00f0*/                   LDGSTS.E.BYPASS.LTC128B.128 [R114+0x3800], [R52.64], P5 ;
        /*0100*/                   SHFL.BFLY PT, R53, R52, 0x1, 0x1f ;
        /*0110*/                   LDGDEPBAR ;
        /*0120*/                   DEPBAR.LE SB0, 0x0 ;
        /*0130*/                   ISETP.NE.U32.AND P0, PT, R91, RZ, PT ;
        /*0140*/              @!P0 BRA 0x3600 ;
        /*0150*/                   ULDC.64 UR4, c[0x0][0x208] ;
        /*0160*/                   S2R R0, SR_TID.X ;
";

    #[test]
    fn instructions_are_counted_by_what_they_are_for() {
        let mix = Mix::of(&parse(LINES));
        let expected = [
            (Class::Tensor, 1),
            (Class::MatrixLoad, 1),
            (Class::Special, 1),
            (Class::Float, 2),
            (Class::Integer, 3),
            (Class::Move, 4),
            (Class::Select, 1),
            (Class::Convert, 1),
            (Class::Shared, 1),
            (Class::Global, 1),
            (Class::Shuffle, 1),
            (Class::Barrier, 2),
            (Class::Control, 2),
            (Class::Uniform, 1),
            (Class::Other, 1),
        ];
        assert_eq!(mix.classes, BTreeMap::from(expected));
        assert_eq!(mix.total, 23);
    }

    #[test]
    fn a_mix_is_a_flat_object_in_the_manifest_and_knows_its_classes() {
        let mix = Mix {
            total: 3,
            hidden_exponentials: 0,
            classes: BTreeMap::from([(Class::Tensor, 1), (Class::MatrixLoad, 2)]),
        };
        let text = serde_json::to_string(&mix).unwrap();
        assert_eq!(text, r#"{"total":3,"tensor":1,"matrix_load":2}"#);
        assert_eq!(serde_json::from_str::<Mix>(&text).unwrap(), mix);
        assert!(serde_json::from_str::<Mix>(r#"{"total":3,"tensors":3}"#).is_err());
    }
}
