//! Tensors in safetensors files: the inputs of a call, the answers to expect, and the answer.

use anyhow::{Context, Result, bail, ensure};
use evo_sdpa::half::{bf16, f16};
use evo_sdpa::verify::Inputs;
use evo_sdpa::{Causal, DType, Element, Layout};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A parsed file with `q`, `k` and `v`, and whatever else of its tensors is known by name.
pub struct File<'a> {
    tensors: SafeTensors<'a>,
    dtype: DType,
    scale: Option<f32>,
}

/// The answers that a file says are right.
pub struct Answers {
    /// Attention, \[batch, heads_q, q_len, head_dim\].
    pub out: Option<Vec<f64>>,
    /// Log-sum-exp, \[batch, heads_q, q_len\].
    pub lse: Option<Vec<f64>>,
}

impl<'a> File<'a> {
    /// Reads the header of a file's bytes and checks what does not depend on the call.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        check_offsets(bytes)?;
        let tensors = SafeTensors::deserialize(bytes).context("not a safetensors file")?;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = |key| header.metadata().as_ref().and_then(|metadata| metadata.get(key));
        if let Some(layout) = metadata("layout") {
            ensure!(layout == "BHSD", "layout: `{layout}` is not supported, allowed: BHSD");
        }
        let scale = metadata("scale")
            .map(|scale| scale.parse().with_context(|| format!("metadata scale: `{scale}`, allowed: a number")))
            .transpose()?;
        let mut file = Self { tensors, dtype: DType::F32, scale };
        file.dtype = match file.tensor("q")?.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::F32 => DType::F32,
            other => bail!("q: type {other} is not supported, allowed: F16, BF16, F32"),
        };
        Ok(file)
    }

    /// Type of q, k and v.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The factor on the scores that the metadata give.
    pub fn scale(&self) -> Option<f32> {
        self.scale
    }

    /// The inputs as elements of `T`, which is [`File::dtype`].
    pub fn inputs<T: Element>(&self, causal: Option<Causal>, scale: Option<f32>) -> Result<Inputs<T>> {
        let (q, q_layout) = self.input("q")?;
        let (k, k_layout) = self.input("k")?;
        let (v, v_layout) = self.input("v")?;
        let kv_lens = self.kv_lens(q_layout.shape()[0])?;
        Ok(Inputs { q, k, v, q_layout, k_layout, v_layout, causal, scale, kv_lens, splits: None })
    }

    /// The expected answers, `out_causal` and `lse_causal` for a causal call, for queries of this shape.
    pub fn answers(&self, causal: bool, q_shape: [usize; 4]) -> Result<Answers> {
        let names = if causal { ["out_causal", "lse_causal"] } else { ["out", "lse"] };
        let [out, lse] = [(names[0], &q_shape[..]), (names[1], &q_shape[..3])].map(|(name, shape)| {
            let Ok(view) = self.tensors.tensor(name) else { return Ok(None) };
            ensure!(view.shape() == shape, "{name}: {:?} does not fit, allowed: {shape:?}, as q", view.shape());
            floats(name, &view).map(Some)
        });
        Ok(Answers { out: out?, lse: lse? })
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'a>> {
        self.tensors.tensor(name).map_err(|_| {
            let mut names = self.tensors.names();
            names.sort_unstable();
            anyhow::anyhow!("{name}: no such tensor, the file holds {}", names.join(", "))
        })
    }

    fn input<T: Element>(&self, name: &str) -> Result<(Vec<T>, Layout)> {
        let view = self.tensor(name)?;
        let (found, wanted) = (view.dtype(), self.tensor("q")?.dtype());
        ensure!(found == wanted, "{name}: type {found} does not fit, allowed: {wanted}, as q");
        let shape = <[usize; 4]>::try_from(view.shape()).map_err(|_| {
            anyhow::anyhow!(
                "{name}: {:?} does not fit, allowed: four axes, [batch, heads, seq, head_dim]",
                view.shape()
            )
        })?;
        Ok((floats(name, &view)?.into_iter().map(T::from_f64).collect(), Layout::bhsd(shape)))
    }

    fn kv_lens(&self, batch: usize) -> Result<Option<Vec<i32>>> {
        let Ok(view) = self.tensors.tensor("kv_len") else { return Ok(None) };
        let shape = view.shape();
        ensure!(shape == [batch], "kv_len: {shape:?} does not fit, allowed: [{batch}], one length a sequence");
        let lengths: Vec<i64> = match view.dtype() {
            Dtype::I32 => numbers(view.data(), |b| i32::from_le_bytes(b).into()).collect(),
            Dtype::U32 => numbers(view.data(), |b| u32::from_le_bytes(b).into()).collect(),
            Dtype::I64 => numbers(view.data(), i64::from_le_bytes).collect(),
            other => bail!("kv_len: type {other} is not supported, allowed: I32, U32, I64"),
        };
        let length = |len: i64| {
            let allowed = || format!("kv_len: {len} does not fit, allowed: numbers of at most 31 bits");
            i32::try_from(len).with_context(allowed)
        };
        lengths.into_iter().map(length).collect::<Result<_>>().map(Some)
    }
}

/// Refuses tensors that end beyond the file. The parser does so too, but only after it has added their ends up.
fn check_offsets(bytes: &[u8]) -> Result<()> {
    let header = bytes.split_first_chunk::<8>().and_then(|(len, rest)| {
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        serde_json::from_slice::<HashMap<String, Value>>(rest.get(..len)?).ok()
    });
    for (name, tensor) in header.unwrap_or_default() {
        let end = tensor.get("data_offsets").and_then(|offsets| offsets.get(1)?.as_u64());
        if let Some(end) = end.filter(|&end| end > bytes.len() as u64) {
            bail!("not a safetensors file: {name} ends at byte {end}, the file has {}", bytes.len());
        }
    }
    Ok(())
}

fn numbers<const N: usize, O>(data: &[u8], read: impl Fn([u8; N]) -> O) -> impl Iterator<Item = O> {
    data.as_chunks::<N>().0.iter().map(move |&bytes| read(bytes))
}

fn floats(name: &str, view: &TensorView) -> Result<Vec<f64>> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F16 => numbers(data, |b| f16::from_le_bytes(b).to_f64()).collect(),
        Dtype::BF16 => numbers(data, |b| bf16::from_le_bytes(b).to_f64()).collect(),
        Dtype::F32 => numbers(data, |b| f32::from_le_bytes(b).into()).collect(),
        Dtype::F64 => numbers(data, f64::from_le_bytes).collect(),
        other => bail!("{name}: type {other} is not supported, allowed: F16, BF16, F32, F64"),
    })
}

/// Writes `out` in its own type and `lse` in f32.
pub fn write<T: Element>(path: &Path, shape: [usize; 4], out: &[T], lse: &[f32]) -> Result<()> {
    let dtype = match T::DTYPE {
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
    };
    let bytes: Vec<u8> = match T::DTYPE {
        DType::F16 => out.iter().flat_map(|x| f16::from_f32(x.to_f32()).to_le_bytes()).collect(),
        DType::Bf16 => out.iter().flat_map(|x| bf16::from_f32(x.to_f32()).to_le_bytes()).collect(),
        DType::F32 => out.iter().flat_map(|x| x.to_f32().to_le_bytes()).collect(),
    };
    let lse: Vec<u8> = lse.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [
        ("out", TensorView::new(dtype, shape.into(), &bytes)?),
        ("lse", TensorView::new(Dtype::F32, shape[..3].into(), &lse)?),
    ];
    let metadata = HashMap::from([("layout".into(), "BHSD".into()), ("lse".into(), "natural log".into())]);
    serialize_to_file(tensors, Some(metadata), path).with_context(|| format!("cannot write {}", path.display()))
}
