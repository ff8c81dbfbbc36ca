"""A bundle's network as ONNX, for programs without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from results.bundles.bundle import Bundle
from search_spaces.errors import InputError

ONNX = "model.onnx"


def require_onnx() -> None:
    """Raise InputError if ONNX cannot be written, before hours are spent on a network to be exported."""
    if any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        raise InputError("ONNX export needs the extra: pip install 'vessel-nas[onnx]'")


def to_onnx(bundle: Bundle) -> tuple[Path, float]:
    """Write model.onnx into a bundle; its path and the largest difference from torch's output.

    The graph takes float (B, slices_in, crop, crop) with any B and gives logits. The difference is measured with
    onnxruntime on random input. Raises InputError if the extra `onnx` is not installed.
    """
    require_onnx()
    import onnxruntime

    architecture = bundle.architecture
    shape = (2, architecture.candidate.slices_in, architecture.fit.crop, architecture.fit.crop)
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    path = bundle.path / ONNX
    with _attention_written_out(bundle.network):
        program = torch.onnx.export(
            bundle.network,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = bundle.network(example)
    found = torch.from_numpy(session.run(None, {"image": example.numpy()})[0])
    return path, float((found - expected).abs().max())


@contextmanager
def _attention_written_out(network: nn.Module) -> Iterator[None]:
    """Turn off torch's fused attention, which the exporter only supports in four dimensions; SAM's has three."""
    fused: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True
