"""What holds for the peers without PyTorch or a GPU."""

import contextlib
import io
import json
import re
import unittest
import unittest.mock
from pathlib import Path

import peers
from libraries import PEERS
from records import Call, buffer_sets, graph_calls, limits_record, quantiles, read_calls, time_record

SCHEMA = Path(__file__).parents[2] / "src/cli/record.rs"


def call(shape=(1, 8, 8, 512, 512, 64), causal="none", dtype="bf16") -> Call:
    return Call(dtype, shape, causal)


def e4m3(shape=(1, 8, 8, 512, 512, 64), causal="none", out="bf16", scales="head") -> Call:
    return Call("e4m3", shape, causal, out, scales)


def line(**fields) -> str:
    return json.dumps({"dtype": "bf16", "shape": [1, 8, 8, 512, 512, 64], "causal": "none"} | fields)


def rust_fields(struct: str) -> set[str]:
    """The fields of a struct of the program's schema."""
    body = re.search(rf"pub struct {struct} {{\n(.*?)\n}}", SCHEMA.read_text(encoding="utf-8"), re.DOTALL).group(1)
    return set(re.findall(r"^    pub (\w+):", body, re.MULTILINE))


class Calls(unittest.TestCase):
    def test_listed_calls_and_results_are_read_each_call_once(self):
        listed = line()
        result = json.dumps({"kind": "time", "call": json.loads(line(causal="bottom-right")), "device_us": {}})
        limits = json.dumps({"kind": "limits"})
        read = read_calls([listed, "\n", limits, result, listed])
        self.assertEqual(read, [call(), call(causal="bottom-right")])

    def test_a_line_that_holds_no_call_is_named_with_its_number_and_field(self):
        wrong = {
            "dtype: 'fp8', allowed: bf16, f16, f32, e4m3": line(dtype="fp8"),
            "dtype: 'bf16' with out or scales, allowed: e4m3": line(scales="head"),
            "out: None, allowed: bf16, f16": line(dtype="e4m3", scales="head"),
            "out: 'f32', allowed: bf16, f16": line(dtype="e4m3", out="f32", scales="head"),
            "from: 'f16', allowed: none": line(dtype="e4m3", out="f16", scales="head", **{"from": "f16"}),
            "values: 'transposed', allowed: none": line(dtype="e4m3", out="f16", scales="head", values="transposed"),
            "scales: 'row', allowed: tensor, head, a number": line(dtype="e4m3", out="f16", scales="row"),
            "shape: [1, 2, 3], allowed: six": line(shape=[1, 2, 3]),
            "shape: [1, 8, 8, 0, 512, 64]": line(shape=[1, 8, 8, 0, 512, 64]),
            "shape: 8 query heads, allowed: multiples of the 3 key heads": line(shape=[1, 8, 3, 512, 512, 64]),
            "causal: 'lower', allowed: none, bottom-right": line(causal="lower"),
            "Expecting value": "nonsense",
            "no call, allowed: what": "[]",
            "no call, allowed": '{"kind": "time"}',
        }
        for reason, text in wrong.items():
            with self.subTest(text), self.assertRaises(ValueError) as raised:
                read_calls([line(), text])
            self.assertIn(f"line 2: {reason}", str(raised.exception))

    def test_calls_of_e4m3_inputs_are_told_from_others_and_from_each_other(self):
        lines = [line(), line(dtype="e4m3", out="bf16", scales="head"), line(dtype="e4m3", out="f16", scales="64")]
        self.assertEqual(read_calls(lines), [call(), e4m3(), e4m3(out="f16", scales="64")])
        self.assertEqual(str(e4m3()), "e4m3 to bf16, scales: head, 1,8,8,512,512,64 none")
        self.assertEqual([json.loads(text) for text in lines[:2]], [call().fields, e4m3().fields])

    def test_every_mask_is_a_diagonal(self):
        masks = {"none": None, "bottom-right": 20, "top-left": 0, "-7": -7, "3": 3}
        for causal, diagonal in masks.items():
            self.assertEqual(call((1, 2, 2, 10, 30, 64), causal).diagonal, diagonal)

    def test_operations_are_those_of_visible_pairs(self):
        pairs = lambda causal, q_len, kv_len: call((1, 1, 1, q_len, kv_len, 1), causal).flops // 4
        self.assertEqual(pairs("none", 3, 5), 15)
        self.assertEqual(pairs("bottom-right", 3, 5), 3 + 4 + 5)
        self.assertEqual(pairs("top-left", 5, 3), 1 + 2 + 3 + 3 + 3)
        self.assertEqual(pairs("bottom-right", 5, 3), 0 + 0 + 1 + 2 + 3)
        self.assertEqual(call((2, 8, 4, 16, 32, 64)).flops, 4 * 2 * 8 * 16 * 32 * 64)


class Method(unittest.TestCase):
    def test_quantiles_are_by_nearest_rank(self):
        ordered = [float(n) for n in range(1, 101)]
        self.assertEqual(quantiles(ordered[::-1]), {"min": 1.0, "p50": 50.0, "p90": 90.0, "p99": 99.0})
        self.assertEqual(quantiles([3.0, 1.0, 2.0]), {"min": 1.0, "p50": 2.0, "p90": 3.0, "p99": 3.0})
        self.assertEqual(quantiles([7.0]), {"min": 7.0, "p50": 7.0, "p90": 7.0, "p99": 7.0})

    def test_a_graph_has_calls_for_four_milliseconds_but_at_most_twenty(self):
        self.assertEqual([graph_calls(us, 1) for us in (4.5, 200.0, 201.0, 1500.0, 4000.0, 9e4)], [20, 20, 20, 3, 1, 1])

    def test_every_set_has_its_turn_in_a_graph(self):
        self.assertEqual([graph_calls(5.0, 90), graph_calls(9e4, 2)], [90, 2])

    def test_sets_of_cold_calls_are_three_times_as_large_as_the_cache(self):
        mib = 1 << 20
        small, large = call((1, 8, 8, 512, 512, 64)), call((4, 32, 32, 4096, 4096, 64))
        self.assertEqual((small.bytes, large.bytes), (2 * mib, 256 * mib))
        self.assertEqual([buffer_sets(small, 50 * mib, cold) for cold in (False, True)], [1, 75])
        self.assertEqual([buffer_sets(large, 50 * mib, cold) for cold in (False, True)], [1, 2])
        self.assertEqual(call((1, 8, 2, 64, 128, 32)).bytes, 2 * 32 * (2 * 8 * 64 + 2 * 2 * 128))
        # Of e4m3 inputs, the answer alone has two bytes a number.
        self.assertEqual(e4m3((1, 8, 2, 64, 128, 32)).bytes, 32 * (3 * 8 * 64 + 2 * 2 * 128))


def takers(problem: Call) -> set[str]:
    return {name for name, peer in PEERS.items() if peer.refusal(problem) is None}


class Masks(unittest.TestCase):
    def takers(self, causal: str, q_len: int, kv_len: int) -> set[str]:
        return takers(call((1, 2, 2, q_len, kv_len, 64), causal))

    def test_without_a_mask_every_peer_computes_the_same(self):
        self.assertEqual(self.takers("none", 3, 5), set(PEERS))

    def test_on_equal_lengths_both_corners_are_every_peers_mask(self):
        for causal in ("bottom-right", "top-left", "0"):
            self.assertEqual(self.takers(causal, 64, 64), set(PEERS))

    def test_on_other_lengths_only_a_peer_with_that_corner_is_timed(self):
        self.assertEqual(self.takers("bottom-right", 3, 5), {"fa3", "fa4", "flex"})
        self.assertEqual(self.takers("top-left", 3, 5), {"flex"})

    def test_another_diagonal_is_for_flex_alone(self):
        self.assertEqual(self.takers("-1", 64, 64), {"flex"})


class Quantised(unittest.TestCase):
    def test_e4m3_inputs_are_for_flash_attention_3_alone_with_its_scales_and_output(self):
        self.assertEqual(takers(e4m3()), {"fa3"})
        self.assertEqual(takers(e4m3(scales="tensor", causal="bottom-right")), {"fa3"})
        for other in (e4m3(scales="64"), e4m3(out="f16"), e4m3((1, 2, 2, 3, 5, 64), "top-left")):
            self.assertEqual(takers(other), set())
        self.assertEqual(PEERS["cudnn"].refusal(e4m3()), "takes no e4m3 inputs")
        self.assertIn("scales: 64", PEERS["fa3"].refusal(e4m3(scales="64")))

    def test_flash_attention_3_gets_the_scales_by_name(self):
        seen = []

        def flash_attn_func(q, k, v, **options):
            seen.append((q, k, v, options))
            return "answer", "lse"

        module = type("module", (), {"flash_attn_func": staticmethod(flash_attn_func)})
        with unittest.mock.patch("libraries.first_module", lambda names: module):
            run = PEERS["fa3"].make(e4m3(causal="bottom-right"), contextlib.ExitStack())
            self.assertEqual([run(*"qkv"), run(*"qkvabc")], ["answer", "answer"])
        scales = {"q_descale": "a", "k_descale": "b", "v_descale": "c"}
        self.assertEqual(seen, [("q", "k", "v", {"causal": True}), ("q", "k", "v", {"causal": True} | scales)])


class Records(unittest.TestCase):
    SETUP = {"device": "a GPU"}

    def test_a_time_has_the_fields_that_the_program_reads(self):
        method = {"calls": 20, "runs": 2, "buffers": 1, "cold": False, "seed": 1}
        record = time_record(self.SETUP, "cudnn", call(), method, [9.0, 8.0], [40.0], None)
        self.assertEqual(record.pop("kind"), "time")
        self.assertEqual(set(record), rust_fields("Time"))
        self.assertEqual(set(record["call"]), rust_fields("Call") - {"out", "scales", "from", "values"})
        self.assertEqual(set(e4m3().fields), rust_fields("Call") - {"from", "values"})
        self.assertEqual(set(record["method"]), rust_fields("Method"))
        self.assertEqual(set(record["device_us"]), rust_fields("Quantiles"))
        self.assertEqual((record["device_us"]["p50"], record["call_us"]["p50"]), (8.0, 40.0))
        self.assertEqual(read_calls([json.dumps(record | {"kind": "time"})]), [call()])

    def test_limits_have_the_fields_that_the_program_reads(self):
        record = limits_record(self.SETUP, {"bf16": 2 * 8192**3 / 800e6}, 500.0)
        self.assertEqual(record.pop("kind"), "limits")
        self.assertEqual(set(record), rust_fields("Limits"))
        self.assertAlmostEqual(record["matrix_tflops"]["bf16"], 800.0)
        self.assertAlmostEqual(record["copy_gbs"], 2 * 2**30 / 500e-6 / 1e9)

    def test_the_device_is_described_by_the_fields_that_the_program_reads(self):
        device = FakeDevice()
        self.assertEqual(set(device.setup()), rust_fields("Setup"))
        self.assertEqual(device.setup()["software"], "torch 2.11.0, cuDNN 9.19.0")
        self.assertEqual(set(device.clocks()), rust_fields("Clocks"))


class FakeNvml:
    """Every clock and sensor reads 1."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = range(3)
    NVMLError = RuntimeError
    nvmlDeviceGetClockInfo = nvmlDeviceGetTemperature = staticmethod(lambda handle, which: 1)
    nvmlDeviceGetPowerUsage = staticmethod(lambda handle: 1)
    nvmlSystemGetDriverVersion = staticmethod(lambda: "580.1")


class FakeDevice(peers.Device):
    """A device without PyTorch."""

    class torch:
        __version__ = "2.11.0"

        class version:
            cuda = "13.0"

        class backends:
            class cudnn:
                version = staticmethod(lambda: 91900)

    class properties:
        name, major, minor, multi_processor_count, L2_cache_size = "a GPU", 9, 0, 132, 60 << 20

    def __init__(self):
        self.started, self.nvml, self.handle = "2026-01-01T00:00:00Z", FakeNvml, None


class CommandLine(unittest.TestCase):
    def refused(self, *options: str) -> str:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
            peers.arguments(["calls.jsonl", "--json", "out.jsonl", *options])
        return said.getvalue()

    def test_peers_are_chosen_by_name(self):
        args = peers.arguments(["calls.jsonl", "--json", "out.jsonl", "--peers", "cudnn,fa3"])
        self.assertEqual((args.peers, args.runs, args.cold, args.seed), (["cudnn", "fa3"], 100, False, 1))

    def test_what_is_not_allowed_is_refused_with_what_is(self):
        self.assertIn("`fa2`, allowed: default, flash", self.refused("--peers", "flash,fa2"))
        self.assertIn("`0`, allowed: whole numbers above 0", self.refused("--runs", "0"))

    def test_a_missing_file_ends_the_program_with_its_name(self):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = peers.main(["no-such-file.jsonl", "--json", "out.jsonl"])
        self.assertEqual(code, 1)
        self.assertIn("no-such-file.jsonl", said.getvalue())


if __name__ == "__main__":
    unittest.main()
